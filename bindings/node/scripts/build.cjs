'use strict';
// Builds the native half with cargo and puts it where `lib/native.js` looks for it:
// `node scripts/build.cjs [TARGET]`, a target of Rust, such as aarch64-unknown-linux-gnu, for
// another system than this one.

const { execFileSync, spawnSync } = require('node:child_process');
const { copyFileSync, mkdirSync, renameSync } = require('node:fs');
const path = require('node:path');
const { file, place } = require('../lib/native.js');

const root = path.join(__dirname, '..');
const TARGETS = {
  'aarch64-unknown-linux-gnu': 'linux-arm64-gnu',
  'aarch64-unknown-linux-musl': 'linux-arm64-musl',
  'x86_64-unknown-linux-gnu': 'linux-x64-gnu',
  'x86_64-unknown-linux-musl': 'linux-x64-musl',
};

// As Debian calls it.
const LINKERS = { 'aarch64-unknown-linux-gnu': 'aarch64-linux-gnu-gcc' };

/** The environment for a target: what its name needs and nobody has set. */
function environment(target, host) {
  const prefix = `CARGO_TARGET_${target.toUpperCase().replaceAll('-', '_')}`;
  const env = {};
  // musl is linked statically by default, and what is loaded into Node cannot be.
  if (target.endsWith('-musl')) env[`${prefix}_RUSTFLAGS`] = '-C target-feature=-crt-static';
  const linker = LINKERS[target];
  if (linker !== undefined && target !== host) env[`${prefix}_LINKER`] = linker;
  return { ...env, ...process.env };
}

/** Builds it, for this system if no target is given; says whether there is a cargo. */
function build(target) {
  const cargo = process.env.CARGO ?? 'cargo';
  if (spawnSync(cargo, ['--version'], { stdio: 'ignore' }).status !== 0) return false;
  const manifest = path.join(root, 'Cargo.toml');
  const locked = ['--locked', '--manifest-path', manifest];
  const host = path.basename(path.dirname(place()));
  const triple = target === undefined ? host : TARGETS[target];
  if (triple === undefined) throw new Error(`${target} is none of ${Object.keys(TARGETS)}`);
  const nameOf = (of) => Object.keys(TARGETS).find((name) => TARGETS[name] === of) ?? '';
  const wanted = target === undefined ? [] : ['--target', target];
  execFileSync(cargo, ['build', '--release', ...wanted, ...locked], {
    stdio: 'inherit', env: environment(nameOf(triple), nameOf(host)),
  });
  const about = execFileSync(cargo, ['metadata', '--format-version=1', '--no-deps', ...locked]);
  const built = path.join(JSON.parse(about).target_directory, target ?? '', 'release');
  const to = file(triple);
  mkdirSync(path.dirname(to), { recursive: true });
  // Renamed, as a process may have the file mapped that was there before.
  const fresh = `${to}.${process.pid}`;
  copyFileSync(path.join(built, 'libfastmq_node.so'), fresh);
  renameSync(fresh, to);
  console.log(path.relative(root, to));
  return true;
}

module.exports = { build };
if (require.main === module && !build(process.argv[2])) {
  console.error('libfastmq: there is no cargo; https://rustup.rs has it');
  process.exit(1);
}
