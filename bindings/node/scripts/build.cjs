'use strict';
// Builds the native half with cargo and puts it where `lib/native.js` looks for it.

const { execFileSync } = require('node:child_process');
const { copyFileSync, mkdirSync, renameSync } = require('node:fs');
const path = require('node:path');
const { place } = require('../lib/native.js');

const root = path.join(__dirname, '..');

function build() {
  const cargo = process.env.CARGO ?? 'cargo';
  const manifest = path.join(root, 'Cargo.toml');
  const locked = ['--locked', '--manifest-path', manifest];
  execFileSync(cargo, ['build', '--release', ...locked], { stdio: 'inherit' });
  const about = execFileSync(cargo, ['metadata', '--format-version=1', '--no-deps', ...locked]);
  const target = JSON.parse(about).target_directory;
  mkdirSync(path.dirname(place()), { recursive: true });
  // Renamed, as a process may have the file mapped that was there before.
  const fresh = `${place()}.${process.pid}`;
  copyFileSync(path.join(target, 'release', 'libfastmq_node.so'), fresh);
  renameSync(fresh, place());
  console.log(path.relative(root, place()));
}

module.exports = { build };
if (require.main === module) build();
