//! Numbered places that are used again, with names that are not.

/// Keys fit in 63 bits, so that a user may tag them by one.
const LIFE_MAX: u32 = u32::MAX >> 1;

/// A slab: inserting gives a key, and a key that was removed never finds another value.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 operations are in flight")
        });
        let place = &mut self.places[at as usize];
        place.1 = Some(value);
        u64::from(place.0) << 32 | u64::from(at)
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        let place = self.places.get(Self::at(key))?;
        if place.0 == Self::life(key) { place.1.as_ref() } else { None }
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let place = self.places.get_mut(Self::at(key))?;
        if place.0 == Self::life(key) { place.1.as_mut() } else { None }
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let place = self.places.get_mut(Self::at(key))?;
        if place.0 != Self::life(key) {
            return None;
        }
        let value = place.1.take()?;
        place.0 = place.0.wrapping_add(1) & LIFE_MAX;
        self.free.push(u32::try_from(Self::at(key)).expect("a place has 32 bits"));
        Some(value)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = u64> + '_ {
        let full = self.places.iter().enumerate().filter(|(_, place)| place.1.is_some());
        full.map(|(at, place)| u64::from(place.0) << 32 | at as u64)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low half is the place")]
    fn at(key: u64) -> usize {
        key as u32 as usize
    }

    fn life(key: u64) -> u32 {
        (key >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_a_removed_value_finds_nothing_even_when_its_place_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.keys().collect::<Vec<_>>(), [second]);
    }
}
