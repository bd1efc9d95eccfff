//! Which pages are free: a buddy allocator over page numbers, with a shelf of recently freed blocks in front.
//!
//! It knows nothing of memory. A block of order `n` is `2^n` pages and begins at a multiple of its size; its buddy is the
//! other half of the block of the next order. The shelf keeps the steady state (the same few sizes, taken and given back) from
//! splitting and merging at every turn.

use std::iter;

/// The highest order: 2^13 pages are 32 MiB, the largest request of the NBD protocol that is never refused.
pub(super) const MAX_ORDER: u8 = 13;

const ORDERS: usize = MAX_ORDER as usize + 1;

/// No page.
const NIL: u32 = u32::MAX;

/// How many pages of one order the shelf may keep (1 MiB), but at least one block.
const SHELF_PAGES: usize = 256;

/// The allocator.
#[derive(Debug)]
pub(super) struct Buddy {
    /// The first free block of each order.
    heads: [u32; ORDERS],
    /// Per page; meaningful where a free block begins.
    pages: Box<[Page]>,
    /// Freed blocks that were not merged yet.
    shelf: [Vec<u32>; ORDERS],
}

#[derive(Clone, Copy, Debug)]
struct Page {
    next: u32,
    previous: u32,
    /// The order of the free block that begins here, if one does.
    free: Option<u8>,
}

impl Buddy {
    /// All of `pages` pages free.
    pub(super) fn new(pages: u32) -> Self {
        let empty = Page { next: NIL, previous: NIL, free: None };
        let mut buddy = Self {
            heads: [NIL; ORDERS],
            pages: vec![empty; pages as usize].into_boxed_slice(),
            shelf: std::array::from_fn(|order| Vec::with_capacity(shelf_limit(order))),
        };
        // From the end, so that the lowest addresses are handed out first.
        let blocks: Vec<_> = greedy_blocks(pages).collect();
        for &(page, order) in blocks.iter().rev() {
            buddy.link(page, order);
        }
        buddy
    }

    /// Takes a block of `2^order` pages; its first page.
    pub(super) fn allocate(&mut self, order: u8) -> Option<u32> {
        debug_assert!(order <= MAX_ORDER, "the caller checks the length");
        if let Some(page) = self.shelf[usize::from(order)].pop() {
            return Some(page);
        }
        self.split(order).or_else(|| {
            self.clear_shelf();
            self.split(order)
        })
    }

    /// Gives a block back.
    pub(super) fn free(&mut self, page: u32, order: u8) {
        let shelf = &mut self.shelf[usize::from(order)];
        if shelf.len() < shelf_limit(usize::from(order)) {
            shelf.push(page);
        } else {
            self.merge(page, order);
        }
    }

    /// Every free block of at least `order`, as (first page, order), after merging all that can be.
    pub(super) fn free_blocks(&mut self, order: u8) -> impl Iterator<Item = (u32, u8)> {
        self.clear_shelf();
        let free = self.pages.iter().zip(0..).filter_map(|(page, number)| Some((number, page.free?)));
        free.filter(move |&(_, of)| of >= order)
    }

    fn clear_shelf(&mut self) {
        for order in 0..=MAX_ORDER {
            while let Some(page) = self.shelf[usize::from(order)].pop() {
                self.merge(page, order);
            }
        }
    }

    /// Takes the smallest free block that is large enough and gives back its upper halves.
    fn split(&mut self, order: u8) -> Option<u32> {
        let from = (order..=MAX_ORDER).find(|&o| self.heads[usize::from(o)] != NIL)?;
        let page = self.heads[usize::from(from)];
        self.unlink(page, from);
        for half in (order..from).rev() {
            self.link(page + (1 << half), half);
        }
        Some(page)
    }

    /// Makes a block free, together with its buddy as long as that is free too.
    fn merge(&mut self, mut page: u32, mut order: u8) {
        debug_assert!(self.pages[page as usize].free.is_none(), "page {page} is given back twice");
        while order < MAX_ORDER {
            let buddy = page ^ (1 << order);
            if self.pages.get(buddy as usize).and_then(|page| page.free) != Some(order) {
                break;
            }
            self.unlink(buddy, order);
            page = page.min(buddy);
            order += 1;
        }
        self.link(page, order);
    }

    fn link(&mut self, page: u32, order: u8) {
        let head = std::mem::replace(&mut self.heads[usize::from(order)], page);
        if head != NIL {
            self.pages[head as usize].previous = page;
        }
        self.pages[page as usize] = Page { next: head, previous: NIL, free: Some(order) };
    }

    fn unlink(&mut self, page: u32, order: u8) {
        let Page { next, previous, free } = self.pages[page as usize];
        debug_assert_eq!(free, Some(order), "page {page} is on its list");
        match previous {
            NIL => self.heads[usize::from(order)] = next,
            previous => self.pages[previous as usize].next = next,
        }
        if next != NIL {
            self.pages[next as usize].previous = previous;
        }
        self.pages[page as usize].free = None;
    }
}

fn shelf_limit(order: usize) -> usize {
    (SHELF_PAGES >> order).max(1)
}

/// The largest aligned blocks that make up `pages` pages, in ascending order.
fn greedy_blocks(pages: u32) -> impl Iterator<Item = (u32, u8)> {
    let mut at = 0;
    iter::from_fn(move || {
        let order = (0..=MAX_ORDER).rev().find(|&order| at % (1 << order) == 0 && pages - at >= 1 << order)?;
        let block = (at, order);
        at += 1 << order;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn everything_given_back_is_one_piece_again() {
        let mut buddy = Buddy::new(3 << MAX_ORDER);
        let blocks: Vec<_> = iter::from_fn(|| buddy.allocate(0)).collect();
        assert_eq!(blocks.len(), 3 << MAX_ORDER);
        for page in blocks {
            buddy.free(page, 0);
        }
        assert_eq!((0..3).filter_map(|_| buddy.allocate(MAX_ORDER)).count(), 3);
        assert_eq!(buddy.allocate(0), None);
    }

    #[test]
    fn low_addresses_go_first() {
        let mut buddy = Buddy::new(3 << MAX_ORDER);
        assert_eq!([0, 2, MAX_ORDER].map(|order| buddy.allocate(order)), [Some(0), Some(4), Some(1 << MAX_ORDER)]);
    }

    proptest! {
        /// Blocks never overlap, are aligned to their size, and none is lost.
        #[test]
        fn blocks_are_disjoint_and_aligned(pages in 1_u32..3000, steps in prop::collection::vec((any::<bool>(), 0_u8..8, any::<prop::sample::Index>()), 1..400)) {
            let mut buddy = Buddy::new(pages);
            let mut owner = vec![false; pages as usize];
            let mut held: Vec<(u32, u8)> = Vec::new();
            for (take, order, index) in steps {
                if take {
                    let Some(page) = buddy.allocate(order) else { continue };
                    prop_assert_eq!(page % (1 << order), 0);
                    for taken in &mut owner[page as usize..(page + (1 << order)) as usize] {
                        prop_assert!(!std::mem::replace(taken, true), "page handed out twice");
                    }
                    held.push((page, order));
                } else if !held.is_empty() {
                    let (page, order) = held.swap_remove(index.index(held.len()));
                    owner[page as usize..(page + (1 << order)) as usize].fill(false);
                    buddy.free(page, order);
                }
            }
            let free: u32 = buddy.free_blocks(0).map(|(_, order)| 1 << order).sum();
            prop_assert_eq!(free as usize, owner.iter().filter(|&&taken| !taken).count());
        }
    }
}
