//! Numbered places that are used again, under names that are not.

use std::fmt;
use std::marker::PhantomData;

/// Keys fit in 63 bits, so that a user may tag them by one.
const LIFE_MAX: u32 = u32::MAX >> 1;

/// Values that live in numbered places; inserting and removing costs no allocation in the long run. A key that was removed never
/// finds another value.
///
/// `K` is what keys are to those who hold them: a plain number, or a type that wraps one.
pub struct Slab<T, K = u64> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    keys: PhantomData<fn() -> K>,
}

struct Place<T> {
    /// How many values were here before.
    life: u32,
    value: Option<T>,
}

impl<T, K> Default for Slab<T, K> {
    fn default() -> Self {
        Self { places: Vec::new(), free: Vec::new(), keys: PhantomData }
    }
}

impl<T: fmt::Debug, K> fmt::Debug for Slab<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.places.iter().filter_map(|place| place.value.as_ref())).finish()
    }
}

impl<T, K: From<u64> + Into<u64>> Slab<T, K> {
    /// Puts a value into a free place.
    pub fn insert(&mut self, value: T) -> K {
        let at = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { life: 0, value: None });
            u32::try_from(self.places.len() - 1).expect("memory for 2^32 values does not exist")
        });
        let place = &mut self.places[at as usize];
        place.value = Some(value);
        key(place.life, u64::from(at)).into()
    }

    /// The value of a key, if it is still there.
    pub fn get(&self, key: K) -> Option<&T> {
        let (life, at) = halves(key.into());
        self.places.get(at).filter(|place| place.life == life)?.value.as_ref()
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, key: K) -> Option<&mut T> {
        let (life, at) = halves(key.into());
        self.places.get_mut(at).filter(|place| place.life == life)?.value.as_mut()
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: K) -> Option<T> {
        let (life, at) = halves(key.into());
        let place = self.places.get_mut(at).filter(|place| place.life == life)?;
        let value = place.value.take()?;
        place.life = place.life.wrapping_add(1) & LIFE_MAX;
        self.free.push(u32::try_from(at).expect("a place has 32 bits"));
        Some(value)
    }

    /// Every value with its key, in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let full = (0_u64..).zip(&self.places);
        full.filter_map(|(at, place)| place.value.as_ref().map(|value| (key(place.life, at).into(), value)))
    }

    /// Every key, in the order of their places.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn key(life: u32, at: u64) -> u64 {
    u64::from(life) << 32 | at
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is the place, the high half what is left")]
fn halves(key: u64) -> (u32, usize) {
    ((key >> 32) as u32, key as u32 as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_removed_value_finds_nothing_when_its_place_is_used_again() {
        let mut slab: Slab<char> = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_ne!(first, second);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'b'));
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(second, &'b')]);
        assert_eq!((slab.len(), slab.is_empty()), (1, false));
    }
}
