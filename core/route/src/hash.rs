//! The hash of subjects and of their tokens.
//!
//! A weak multiply-rotate hash on sequential names (`player.1`, `player.2`, …) cost the spike a
//! factor of ten, so this one folds full 128-bit products: the construction of wyhash final
//! version 4 (Wang Yi, public domain), which reads 16 bytes a step and short keys in two
//! overlapping words. It differs in one point: the published version xors the input with fixed
//! constants, and an input equal to a constant zeroes a product whatever the seed is. Here all
//! secrets are drawn from the seed (by splitmix64: Steele, Lea, Flood), so that nobody who does
//! not know the seed can aim.
//!
//! Not here: a cryptographic promise, and stability between versions; a hash never leaves the
//! process.

/// A seeded hash of byte strings; 32 bytes, cheap to copy.
#[derive(Clone, Copy)]
pub struct SubjectHash {
    seed: u64,
    secrets: [u64; 3],
}

impl SubjectHash {
    /// The hash that belongs to `seed`, which should be random for each broker.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            seed: splitmix(seed, 1),
            // Odd, so that none of them is zero.
            secrets: [
                splitmix(seed, 2) | 1,
                splitmix(seed, 3) | 1,
                splitmix(seed, 4) | 1,
            ],
        }
    }

    /// The hash of `bytes`.
    #[inline]
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let [s0, s1, s2] = self.secrets;
        let size = bytes.len();
        let mut state = self.seed;
        let (a, b);
        if size <= 16 {
            if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
                a = u64::from_le_bytes(*first);
                b = u64::from_le_bytes(*last);
            } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
                a = u64::from(u32::from_le_bytes(*first));
                b = u64::from(u32::from_le_bytes(*last));
            } else if size > 0 {
                let ends = u64::from(bytes[0]) << 16 | u64::from(bytes[size - 1]);
                a = ends | u64::from(bytes[size / 2]) << 8;
                b = 0;
            } else {
                a = 0;
                b = 0;
            }
        } else {
            let mut rest = bytes;
            while let Some((step, tail)) = rest.split_first_chunk::<16>() {
                if tail.is_empty() {
                    break;
                }
                state = fold(read_8(step, 0) ^ s1, read_8(step, 8) ^ state);
                rest = tail;
            }
            a = read_8(bytes, size - 16);
            b = read_8(bytes, size - 8);
        }
        let product = u128::from(a ^ s1) * u128::from(b ^ state);
        let (low, high) = (product as u64, (product >> 64) as u64);
        fold(low ^ s0 ^ size as u64, high ^ s2)
    }

    /// Joins a hash to what was joined before; the order counts.
    #[inline]
    pub(crate) fn join(&self, before: u64, hash: u64) -> u64 {
        let [s0, s1, _] = self.secrets;
        fold(before ^ s0, hash ^ s1).wrapping_add(before.rotate_left(23))
    }
}

impl std::fmt::Debug for SubjectHash {
    /// Without the seed: who knows it can make subjects that collide.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SubjectHash")
    }
}

/// Whether two texts are the same, a word a step: subjects are too short for a call.
#[inline(always)]
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    let size = a.len();
    if size != b.len() {
        return false;
    }
    let (Some(a_end), Some(b_end)) = (a.last_chunk::<8>(), b.last_chunk::<8>()) else {
        return a == b;
    };
    // The last word may overlap the one before it.
    if a_end != b_end || a.first_chunk::<8>() != b.first_chunk::<8>() {
        return false;
    }
    if size <= 16 {
        return true;
    }
    let (a_words, _) = a.as_chunks::<8>();
    let (b_words, _) = b.as_chunks::<8>();
    a_words.iter().zip(b_words).all(|(a, b)| a == b)
}

#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

#[inline]
fn read_8(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// The `index`-th number of splitmix64 from `seed`.
const fn splitmix(seed: u64, index: u64) -> u64 {
    let mut x = seed.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const NAMES: usize = 65_536;
    const CELLS: usize = 1_024;

    /// Chi-square of the hashes of `name(0..NAMES)` over `CELLS` cells picked by `cell`. Its mean
    /// is `CELLS - 1` and its deviation about 45, so 1,300 is six deviations away.
    fn check(name: impl Fn(usize) -> String, cell: impl Fn(u64) -> usize, what: &str) {
        for seed in [0, 1, 42, u64::MAX, 0x5EED_5EED] {
            let hash = SubjectHash::new(seed);
            let mut counts = vec![0_u32; CELLS];
            for i in 0..NAMES {
                counts[cell(hash.hash(name(i).as_bytes())) % CELLS] += 1;
            }
            let expected = (NAMES / CELLS) as f64;
            let chi: f64 = counts
                .iter()
                .map(|&count| (f64::from(count) - expected).powi(2) / expected)
                .sum();
            assert!(
                (700.0..1_300.0).contains(&chi),
                "{what}, seed {seed}: {chi}"
            );
        }
    }

    fn check_all_bits(name: impl Fn(usize) -> String + Copy) {
        check(name, |hash| hash as usize, "low bits");
        check(name, |hash| (hash >> 20) as usize, "bits from 20");
        check(name, |hash| (hash >> 32) as usize, "bits from 32");
        check(name, |hash| (hash >> 54) as usize, "high bits");
    }

    #[test]
    fn sequential_names_spread_over_all_bits() {
        check_all_bits(|i| format!("player.{i}"));
    }

    #[test]
    fn padded_names_of_every_read_width_spread() {
        check_all_bits(|i| format!("{i:05}"));
        check_all_bits(|i| format!("a{i:07}"));
        check_all_bits(|i| format!("sensor.{i:09}.celsius"));
        check_all_bits(|i| format!("{i:06}.{}", "long.".repeat(12)));
    }

    #[test]
    fn short_strings_never_collide_in_64_bits() {
        let hash = SubjectHash::new(7);
        let mut seen = HashSet::new();
        assert!(seen.insert(hash.hash(b"")));
        for a in 0..=255_u8 {
            assert!(seen.insert(hash.hash(&[a])));
            for b in 0..=255_u8 {
                assert!(seen.insert(hash.hash(&[a, b])));
            }
        }
        for size in 3..80 {
            assert!(seen.insert(hash.hash(&vec![0; size])), "zeros of {size}");
        }
    }

    #[test]
    fn every_bit_of_every_length_counts() {
        let hash = SubjectHash::new(99);
        for size in 1..70 {
            let mut bytes = vec![b'x'; size];
            let base = hash.hash(&bytes);
            for bit in 0..size * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                let changed = (hash.hash(&bytes) ^ base).count_ones();
                assert!(
                    (8..=56).contains(&changed),
                    "size {size}, bit {bit}: {changed}"
                );
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn another_seed_gives_another_hash() {
        let [a, b] = [SubjectHash::new(1), SubjectHash::new(2)];
        for name in ["", "a", "player.1", "a.longer.subject.than.sixteen.bytes"] {
            assert_ne!(a.hash(name.as_bytes()), b.hash(name.as_bytes()));
            assert_eq!(a.hash(name.as_bytes()), a.hash(name.as_bytes()));
        }
    }

    #[test]
    fn joining_depends_on_the_order() {
        let hash = SubjectHash::new(3);
        let (a, b) = (hash.hash(b"a"), hash.hash(b"b"));
        assert_ne!(hash.join(hash.join(0, a), b), hash.join(hash.join(0, b), a));
    }

    #[test]
    fn the_seed_is_not_printed() {
        assert_eq!(format!("{:?}", SubjectHash::new(5)), "SubjectHash");
    }
}
