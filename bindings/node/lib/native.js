'use strict';
// The native half: the prebuilt file that fits this system, or the one that `npm install` built.

const path = require('node:path');

/** What a prebuilt file is called: the system, the processor, and the C library of Linux. */
function triple() {
  const parts = [process.platform, process.arch];
  if (process.platform === 'linux') {
    const { header } = process.report.getReport();
    parts.push(header.glibcVersionRuntime ? 'gnu' : 'musl');
  }
  return parts.join('-');
}

/** Where the file for this system is, or would be. */
function place() {
  return path.join(__dirname, '..', 'prebuilt', triple(), 'fastmq.node');
}

function load() {
  const file = place();
  try {
    return require(file);
  } catch (error) {
    const cure = 'run `npm rebuild libfastmq`, which builds it with cargo';
    const failure = new Error(`cannot load the native part of libfastmq (${file}); ${cure}`);
    failure.cause = error;
    failure.code = 'ERR_DLOPEN_FAILED';
    throw failure;
  }
}

module.exports = { load, place };
