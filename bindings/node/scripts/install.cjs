'use strict';
// Runs at `npm install`: nothing to do where a prebuilt file loads; else it is built from source,
// for which the package must lie in the repository, with a Rust toolchain at hand.

const { existsSync } = require('node:fs');
const path = require('node:path');
const { load, place } = require('../lib/native.js');

function loads() {
  try {
    load();
    return true;
  } catch (error) {
    if (existsSync(place())) console.error(`libfastmq: ${error.message}: ${error.cause?.message}`);
    return false;
  }
}

if (!loads()) {
  if (!existsSync(path.join(__dirname, '..', 'Cargo.toml'))) {
    console.error(`libfastmq: this package has no file for this system (${place()}). Build it `
      + 'from the repository: npm install ./bindings/node');
    process.exit(1);
  }
  require('./build.cjs').build();
}
