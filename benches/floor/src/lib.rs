//! The bare programs that show the limit.
