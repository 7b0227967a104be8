//! The key-shared groups of a broker, and who may join them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fastmq_memory::allocation::try_bytes;
use fastmq_memory::sync::lock;

use crate::broker::Broker;
use crate::error::{Error, Fault, Result, Status};
use crate::keyed::KeyGroup;
use crate::place::Place;

/// The key-shared groups of a broker, by pattern and name, for as long as anybody uses them.
#[derive(Debug, Default)]
pub(crate) struct KeyGroups {
    all: HashMap<Box<[u8]>, Weak<KeyGroup>>,
    /// How many there may be before those that nobody uses are dropped.
    sweep_at: usize,
}

/// Pattern and name as one; neither has a space.
fn name_of(pattern: &[u8], group: &[u8]) -> Result<Box<[u8]>> {
    let mut name = Vec::new();
    let size = pattern.len() + 1 + group.len();
    name.try_reserve_exact(size).map_err(|_| Error::NO_MEMORY)?;
    name.extend_from_slice(pattern);
    name.push(b' ');
    name.extend_from_slice(group);
    Ok(try_bytes(&name)?)
}

impl KeyGroups {
    fn find(&self, name: &[u8]) -> Option<Arc<KeyGroup>> {
        self.all.get(name).and_then(Weak::upgrade)
    }

    fn add(&mut self, name: Box<[u8]>, group: &Arc<KeyGroup>) -> Result<()> {
        if self.all.len() >= self.sweep_at {
            self.all.retain(|_, group| group.strong_count() > 0);
            self.sweep_at = 2 * self.all.len() + 16;
        }
        self.all.try_reserve(1).map_err(|_| Error::NO_MEMORY)?;
        self.all.insert(name, Arc::downgrade(group));
        Ok(())
    }
}

impl Broker {
    /// The key-shared group with this pattern and name, which is made if need be; `id` joins it.
    /// Called with the lock of those who subscribe.
    pub(crate) fn join_group(
        &self,
        pattern: &[u8],
        group: &[u8],
        id: u32,
        place: &Arc<Place>,
        weight: u32,
    ) -> Result<Arc<KeyGroup>> {
        let name = name_of(pattern, group)?;
        let mut groups = lock(&self.key_groups);
        let found = groups.find(&name);
        if found.as_ref().is_none_or(|group| group.is_empty()) {
            let mut is_taken = false;
            self.interest.for_pattern(pattern, |entry| {
                is_taken |= entry.value().group() == group;
            });
            if is_taken {
                return Err(Error::new(&Fault(
                    Status::Conflict,
                    "this pattern has a group of this name that balances by load; its members \
                     choose the same group_mode",
                )));
            }
        }
        let group = match found {
            Some(group) => group,
            None => {
                let group = KeyGroup::new(self.interest.hasher())?;
                groups.add(name, &group)?;
                group
            }
        };
        drop(groups);
        place.enter_group(self, id, &group)?;
        group.join(id, place, weight)?;
        Ok(group)
    }

    /// Refuses a member that balances by load where a key-shared group has the name.
    pub(crate) fn check_not_keyed(&self, pattern: &[u8], group: &[u8]) -> Result<()> {
        let groups = lock(&self.key_groups);
        if groups.all.is_empty() {
            return Ok(());
        }
        let found = groups.find(&name_of(pattern, group)?);
        if found.is_none_or(|group| group.is_empty()) {
            return Ok(());
        }
        Err(Error::new(&Fault(
            Status::Conflict,
            "this pattern has a key-shared group of this name; its members choose the same \
             group_mode",
        )))
    }
}
