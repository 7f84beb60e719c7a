//! A sorted map in pages by hash: a clone shares the pages, and a change copies only the page it touches.
//!
//! A page is a sorted vector, not a tree: a million small pages cost less memory, and a page is copied in one piece.
//! Pages lie in groups, which clones share too, so that a clone takes as many steps as there are groups; a group that
//! was never written to has no pages, so that a walk over a map of few keys is short.

use std::fmt::Debug;
use std::sync::Arc;

/// Pages of a group: as many as there are groups of a real ledger, so that neither a clone nor a change copies many.
const GROUP: usize = 128;
/// Places that a full page grows by: few, for there are many pages.
const GROWTH: usize = 4;

/// What has a place among the pages.
pub(super) trait Place: Copy + Ord {
    /// A number that differs from key to key; it may be small.
    fn number(&self) -> u64;
}

type Page<K, V> = Arc<Vec<(K, V)>>;

/// A map. Cheap to clone.
#[derive(Clone)]
pub(super) struct Paged<K, V> {
    groups: Vec<Arc<Vec<Page<K, V>>>>,
    count: usize,
}

impl<K, V> Paged<K, V> {
    /// All of it, page by page, each in the order of its keys.
    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.groups.iter().flat_map(|group| group.iter()).flat_map(|page| page.iter())
    }
}

/// What it holds counts, not which pages were written to.
impl<K: PartialEq, V: PartialEq> PartialEq for Paged<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl<K: Eq, V: Eq> Eq for Paged<K, V> {}

/// As a map: most pages of a test are empty.
impl<K: Debug, V: Debug> Debug for Paged<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter().map(|(key, value)| (key, value))).finish()
    }
}

impl<K: Place, V: Clone> Paged<K, V> {
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "a key needs a page");
        Self { groups: vec![Arc::default(); count.div_ceil(GROUP)], count }
    }

    /// Number of pages.
    pub fn count(&self) -> usize {
        self.count
    }

    fn page_of(&self, key: &K) -> usize {
        // Mixed, because slots of a shared key space are small numbers; the upper bits are the mixed ones.
        let mixed = key.number().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from((u128::from(mixed) * self.count as u128) >> 64)
            .expect("less than the number of pages")
    }

    fn page(&self, place: usize) -> &[(K, V)] {
        self.groups[place / GROUP].get(place % GROUP).map_or(&[], |page| page)
    }

    fn page_mut(&mut self, place: usize) -> &mut Vec<(K, V)> {
        let group = Arc::make_mut(&mut self.groups[place / GROUP]);
        if group.is_empty() {
            group.resize(GROUP, Arc::default());
        }
        Arc::make_mut(&mut group[place % GROUP])
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let page = self.page(self.page_of(key));
        page.binary_search_by_key(key, |(held, _)| *held).ok().map(|at| &page[at].1)
    }

    /// Sets a value; the one before.
    pub fn set(&mut self, key: K, value: V) -> Option<V> {
        let page = self.page_mut(self.page_of(&key));
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
        let at = self.page(place).binary_search_by_key(key, |(held, _)| *held).ok()?;
        let page = self.page_mut(place);
        let (_, value) = page.remove(at);
        if page.capacity() > 2 * (page.len() + GROWTH) {
            page.shrink_to(page.len() + GROWTH);
        }
        Some(value)
    }

    /// At most `most` of a page behind `after`.
    pub fn chunk(&self, page: usize, after: Option<K>, most: usize) -> &[(K, V)] {
        let page = self.page(page);
        let from = after.map_or(0, |after| page.partition_point(|(key, _)| *key <= after));
        &page[from..page.len().min(from.saturating_add(most))]
    }
}
