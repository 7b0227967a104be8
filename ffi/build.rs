//! Names the shared library for the linker: programs look for `libfastmq.so.0`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libfastmq.so.0");
}
