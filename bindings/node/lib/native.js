'use strict';
// The native half: the prebuilt file that fits this system, or the one that `npm install` built.

const path = require('node:path');

/** Where the file for a system is, such as `linux-x64-gnu`. */
function file(triple) {
  return path.join(__dirname, '..', 'prebuilt', triple, 'fastmq.node');
}

/** The file for this system and processor and, of Linux, a C library. */
function here(libc) {
  return file([process.platform, process.arch, ...(libc === '' ? [] : [libc])].join('-'));
}

/** Where the file of this system is, or would be. Slow: a report says which C library it has. */
function place() {
  if (process.platform !== 'linux') return here('');
  const { header } = process.report.getReport();
  return here(header.glibcVersionRuntime ? 'gnu' : 'musl');
}

function load() {
  let cause;
  for (const libc of process.platform === 'linux' ? ['gnu', 'musl'] : ['']) {
    try {
      return require(here(libc));
    } catch (error) {
      // Of a file that is there but does not load the reason is worth more.
      if (cause === undefined || error.code !== 'MODULE_NOT_FOUND') cause = error;
    }
  }
  const cure = 'run `npm rebuild libfastmq`, which builds it with cargo';
  const failure = new Error(`cannot load the native part of libfastmq (${place()}); ${cure}`);
  failure.cause = cause;
  failure.code = 'ERR_DLOPEN_FAILED';
  throw failure;
}

module.exports = { file, load, place };
