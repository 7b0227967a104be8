//! Which shapes of patterns exist, and so which probes a lookup needs.
//!
//! Readers see an immutable list behind a `Snapshot`; the writer keeps the counts. A shape is in
//! the list at least as long as a subscription of that shape is in the table, so that a lookup
//! which sees the subscription also probes for it. Thousands of shapes make lookups slower,
//! nothing worse: a real system has a handful.
//!
//! Not here: the entries (`table`). Patterns without a wildcard have no shape.

use fastmq_memory::snapshot::{Pin, Snapshot};

use crate::allocation::{NoMemory, boxed, filled, vector};
use crate::pattern::Shape;
use crate::subject::SUBJECT_TOKENS_MAX;

/// Counts for which there is memory once there was a shape.
const COUNTS_MIN: usize = 16;

/// The shapes as readers see them.
pub(crate) struct Shapes {
    list: Snapshot<[List; 1]>,
}

/// The shapes as the writer counts them: sorted, with how many subscriptions each has.
pub(crate) struct Counts {
    counts: Vec<(Shape, u32)>,
}

struct List {
    /// Sorted: by kind (closed first), then by tokens.
    shapes: Vec<Shape>,
    /// Where the closed shapes of each token count start; the last is where the open ones do.
    starts: Box<[u32]>,
}

impl Shapes {
    pub(crate) fn new() -> Self {
        Self {
            list: Snapshot::empty(),
        }
    }

    /// Whether there is any, which spares the hashing of tokens.
    #[inline]
    pub(crate) fn are_any(&self, pin: &Pin) -> bool {
        self.list.load(pin).is_some()
    }

    /// The shapes that a subject of `tokens` tokens can match.
    pub(crate) fn of(&self, tokens: usize, pin: &Pin) -> impl Iterator<Item = Shape> {
        let list = self.list.load(pin).map(|[list]| list);
        let (closed, open) = list.map_or((&[][..], &[][..]), |list| list.of(tokens));
        let is_shorter = move |shape: &&Shape| usize::from(shape.tokens) < tokens;
        closed
            .iter()
            .chain(open.iter().take_while(is_shorter))
            .copied()
    }

    /// Counts one more subscription of `shape`; readers probe for it from now on.
    pub(crate) fn insert(&self, counts: &mut Counts, shape: Shape) -> Result<(), NoMemory> {
        match counts.find(shape) {
            Ok(index) => counts.counts[index].1 += 1,
            Err(index) => {
                counts.counts.try_reserve(1).map_err(|_| NoMemory)?;
                counts.counts.insert(index, (shape, 1));
                if let Err(error) = self.publish(counts) {
                    counts.counts.remove(index);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Counts one subscription of `shape` less, after it has left the table.
    pub(crate) fn remove(&self, counts: &mut Counts, shape: Shape) {
        let Ok(index) = counts.find(shape) else {
            return;
        };
        counts.counts[index].1 -= 1;
        if counts.counts[index].1 == 0 {
            counts.counts.remove(index);
            // Without memory readers keep a shape too many: a wasted probe until the next change.
            let _ = self.publish(counts);
            counts.shrink();
        }
    }

    fn publish(&self, counts: &Counts) -> Result<(), NoMemory> {
        let list = if counts.counts.is_empty() {
            None
        } else {
            Some(boxed(List::new(&counts.counts)?)?)
        };
        self.list.store(list);
        Ok(())
    }
}

impl Counts {
    pub(crate) const fn new() -> Self {
        Self { counts: Vec::new() }
    }

    /// Gives memory back when much of it is unused. A vector that shrinks by itself aborts when the
    /// smaller block is refused.
    fn shrink(&mut self) {
        let count = self.counts.len();
        if self.counts.capacity() > 4 * count.max(COUNTS_MIN)
            && let Ok(mut smaller) = vector(2 * count)
        {
            smaller.append(&mut self.counts);
            self.counts = smaller;
        }
    }

    fn find(&self, shape: Shape) -> Result<usize, usize> {
        self.counts
            .binary_search_by_key(&shape, |&(shape, _)| shape)
    }
}

impl List {
    fn new(counts: &[(Shape, u32)]) -> Result<Self, NoMemory> {
        let mut shapes = vector(counts.len())?;
        shapes.extend(counts.iter().map(|&(shape, _)| shape));
        let mut tokens = 0;
        let starts = filled(SUBJECT_TOKENS_MAX + 2, || {
            let is_before =
                |&(shape, _): &(Shape, u32)| !shape.is_open && usize::from(shape.tokens) < tokens;
            let start = counts.partition_point(is_before);
            tokens += 1;
            start as u32
        })?;
        Ok(Self { shapes, starts })
    }

    fn of(&self, tokens: usize) -> (&[Shape], &[Shape]) {
        let start = |tokens: usize| self.starts[tokens.min(SUBJECT_TOKENS_MAX + 1)] as usize;
        let closed = &self.shapes[start(tokens)..start(tokens + 1)];
        (closed, &self.shapes[start(SUBJECT_TOKENS_MAX + 1)..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastmq_memory::snapshot::pin;

    struct Fixture {
        shapes: Shapes,
        counts: Counts,
    }

    impl Fixture {
        fn new(patterns: &[&str]) -> Self {
            let (shapes, counts) = (Shapes::new(), Counts::new());
            let mut fixture = Self { shapes, counts };
            for pattern in patterns {
                let shape = Shape::of(pattern.as_bytes()).unwrap();
                fixture.shapes.insert(&mut fixture.counts, shape).unwrap();
            }
            fixture
        }

        fn remove(&mut self, pattern: &str) {
            let shape = Shape::of(pattern.as_bytes()).unwrap();
            self.shapes.remove(&mut self.counts, shape);
        }

        fn check(&self, tokens: usize, expected: &[&str]) {
            let shapes: Vec<Shape> = self.shapes.of(tokens, &pin()).collect();
            let expected: Vec<Shape> = expected
                .iter()
                .map(|pattern| Shape::of(pattern.as_bytes()).unwrap())
                .collect();
            assert_eq!(shapes, expected, "{tokens} tokens");
        }
    }

    #[test]
    fn only_shapes_that_can_match_are_given() {
        let fixture = Fixture::new(&["a.>", "*", "*.b", "b.*", ">", "x.y.*", "*.b.c.>"]);
        fixture.check(1, &["*", ">"]);
        fixture.check(2, &["*.b", "b.*", ">", "a.>"]);
        fixture.check(3, &["x.y.*", ">", "a.>"]);
        fixture.check(4, &[">", "a.>", "*.b.c.>"]);
        fixture.check(SUBJECT_TOKENS_MAX, &[">", "a.>", "*.b.c.>"]);
    }

    #[test]
    fn a_shape_stays_until_its_last_subscription_goes() {
        let mut fixture = Fixture::new(&["a.*", "b.*", "*.*"]);
        fixture.remove("a.*");
        fixture.check(2, &["c.*", "*.*"]);
        fixture.remove("b.*");
        fixture.check(2, &["*.*"]);
        assert!(fixture.shapes.are_any(&pin()));
        fixture.remove("*.*");
        fixture.check(2, &[]);
        assert!(!fixture.shapes.are_any(&pin()));
    }

    #[test]
    fn the_widest_pattern_has_a_place() {
        let widest = ["*"; SUBJECT_TOKENS_MAX].join(".");
        let fixture = Fixture::new(&[&widest]);
        fixture.check(SUBJECT_TOKENS_MAX, &[&widest]);
        fixture.check(SUBJECT_TOKENS_MAX - 1, &[]);
    }
}
