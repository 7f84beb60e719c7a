//! A sorted map in pages by hash: a clone shares the pages, and a change copies only the page it touches.
//!
//! A page is a sorted vector, not a tree: a million small pages cost less memory, and a page is copied in one piece.

use std::fmt::Debug;
use std::sync::Arc;

/// Places that a full page grows by: few, for there are many pages.
const GROWTH: usize = 4;

/// What has a place among the pages.
pub(super) trait Place: Copy + Ord {
    /// A number that differs from key to key; it may be small.
    fn number(&self) -> u64;
}

/// A map. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Paged<K, V> {
    pages: Vec<Arc<Vec<(K, V)>>>,
}

/// As a map: most pages of a test are empty.
impl<K: Debug, V: Debug> Debug for Paged<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(self.pages.iter().flat_map(|page| page.iter()).map(|(key, value)| (key, value)))
            .finish()
    }
}

impl<K: Place, V: Clone> Paged<K, V> {
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "a key needs a page");
        Self { pages: vec![Arc::default(); count] }
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.pages.len()
    }

    fn page_of(&self, key: &K) -> usize {
        // Mixed, because slots of a shared key space are small numbers; the upper bits are the mixed ones.
        let mixed = key.number().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pages = self.pages.len() as u128;
        usize::try_from((u128::from(mixed) * pages) >> 64).expect("less than the number of pages")
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let page = &self.pages[self.page_of(key)];
        page.binary_search_by_key(key, |(held, _)| *held).ok().map(|at| &page[at].1)
    }

    /// Sets a value; the one before.
    pub fn set(&mut self, key: K, value: V) -> Option<V> {
        let place = self.page_of(&key);
        let page = Arc::make_mut(&mut self.pages[place]);
        match page.binary_search_by_key(&key, |(held, _)| *held) {
            Ok(at) => Some(std::mem::replace(&mut page[at].1, value)),
            Err(at) => {
                if page.len() == page.capacity() {
                    page.reserve_exact(GROWTH);
                }
                page.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes a value and yields it.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.page_of(key);
        let at = self.pages[place].binary_search_by_key(key, |(held, _)| *held).ok()?;
        let page = Arc::make_mut(&mut self.pages[place]);
        let (_, value) = page.remove(at);
        if page.capacity() > 2 * (page.len() + GROWTH) {
            page.shrink_to(page.len() + GROWTH);
        }
        Some(value)
    }

    /// At most `most` of a page behind `after`.
    pub fn chunk(&self, page: usize, after: Option<K>, most: usize) -> &[(K, V)] {
        let page = &self.pages[page];
        let from = after.map_or(0, |after| page.partition_point(|(key, _)| *key <= after));
        &page[from..page.len().min(from.saturating_add(most))]
    }

    /// All of it, page by page, each in the order of its keys.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.pages.iter().flat_map(|page| page.iter())
    }
}
