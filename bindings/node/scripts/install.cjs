'use strict';
// Runs at `npm install`: nothing to do where a prebuilt file loads; else it is built from source,
// for which the package must lie in the repository, with a Rust toolchain at hand.

const { existsSync, readdirSync } = require('node:fs');
const path = require('node:path');
const { load, place } = require('../lib/native.js');

const root = path.join(__dirname, '..');

function loads() {
  try {
    load();
    return true;
  } catch (error) {
    if (existsSync(place())) console.error(`libfastmq: ${error.message}: ${error.cause?.message}`);
    return false;
  }
}

/** Ends the installation with what is missing and the cure. */
function refuse(cure) {
  const prebuilt = path.join(root, 'prebuilt');
  const has = existsSync(prebuilt) ? readdirSync(prebuilt).join(', ') : '';
  const system = path.basename(path.dirname(place()));
  console.error(`libfastmq: no prebuilt file for this system, ${system}, loads; there is one for: `
    + `${has || 'none'}. ${cure}`);
  process.exit(1);
}

if (!loads()) {
  if (process.platform !== 'linux') {
    refuse('FAST MQ runs on Linux.');
  } else if (!existsSync(path.join(root, 'Cargo.toml'))) {
    refuse('Build it from its repository, with Rust (https://rustup.rs): npm install ./bindings/node');
  } else if (!require('./build.cjs').build()) {
    refuse('To build it from source cargo is needed: https://rustup.rs');
  }
}
