'use strict';
// The native half: the prebuilt file that fits this system, or the one that `npm install` built.

const path = require('node:path');

/** Where the file for a system, a processor and, of Linux, a C library is. */
function file(libc) {
  const triple = [process.platform, process.arch, ...(libc === '' ? [] : [libc])].join('-');
  return path.join(__dirname, '..', 'prebuilt', triple, 'fastmq.node');
}

/** Where the file of this system is, or would be. Slow: a report says which C library it has. */
function place() {
  if (process.platform !== 'linux') return file('');
  const { header } = process.report.getReport();
  return file(header.glibcVersionRuntime ? 'gnu' : 'musl');
}

function load() {
  let cause;
  for (const libc of process.platform === 'linux' ? ['gnu', 'musl'] : ['']) {
    try {
      return require(file(libc));
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

module.exports = { load, place };
