//! Random numbers: the kernel's for the real world, a counted sequence for simulations.
//!
//! `getrandom` is asked every time, because these numbers seed the hash of subjects: one that a
//! peer can derive from another would let it build collisions.

/// SplitMix64: a counter and a mixer, so that the n-th number of a seed needs no history.
///
/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (OOPSLA 2014), with the
/// constants of Vigna's `splitmix64.c`. Good for choosing and for simulation, never for secrets.
#[derive(Clone, Debug)]
pub struct SplitMix64 {
    state: u64,
}

impl SplitMix64 {
    /// The step of the counter: 2^64 divided by the golden ratio, made odd.
    pub(crate) const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

    /// A sequence that `seed` decides.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number of the sequence.
    #[inline]
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(Self::GAMMA);
        Self::mix(self.state)
    }

    /// The number at one state of the counter.
    #[inline]
    pub(crate) const fn mix(state: u64) -> u64 {
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// Eight bytes of the kernel's generator.
///
/// Where the kernel refuses (very early in the boot, or a seccomp filter) the clocks and an
/// address are mixed instead: different in every process, but not secret.
pub(crate) fn system() -> u64 {
    const TRIES_MAX: u32 = 8;
    for _ in 0..TRIES_MAX {
        let mut value = 0_u64;
        // SAFETY: the buffer is eight writable bytes, alive for the whole call.
        let count = unsafe {
            libc::syscall(
                libc::SYS_getrandom,
                &raw mut value,
                size_of::<u64>(),
                libc::GRND_NONBLOCK,
            )
        };
        // Reads of up to 256 bytes are never cut short once the generator is ready.
        if count == 8 {
            return value;
        }
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            break;
        }
    }
    let local = 0_u8;
    let address = u64::try_from((&raw const local).addr()).unwrap_or(0);
    let clocks = crate::clock::monotonic_ns() ^ crate::clock::unix_ns().rotate_left(32);
    SplitMix64::new(clocks ^ SplitMix64::mix(address)).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_mix_gives_the_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        let expected = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(expected.map(|_| random.next_u64()), expected);
    }

    #[test]
    fn the_system_does_not_repeat_itself() {
        let mut seen: Vec<u64> = (0..64).map(|_| system()).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 64);
    }
}
