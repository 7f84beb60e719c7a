//! Buckets in pages by hash: a snapshot shares the pages, and a change copies only the page it touches.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::bucket::Bucket;
use super::digest::Digester;
use super::ids::Key;

/// Pages of a real ledger.
pub(super) const PAGES: usize = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Page {
    buckets: Arc<BTreeMap<Key, Bucket>>,
    /// Wrapping sum of the buckets' digests.
    digest: u64,
}

/// All buckets. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pages: Vec<Page>,
}

impl Pages {
    pub fn new(count: usize) -> Self {
        assert!(count > 0, "a key needs a page");
        Self { pages: vec![Page::default(); count] }
    }

    pub fn count(&self) -> usize {
        self.pages.len()
    }

    pub fn page_of(&self, key: &Key) -> usize {
        // Mixed, because slots of a shared key space are small numbers; the upper bits are the mixed ones.
        let mixed =
            (key.limit.0 ^ key.tenant.rotate_left(32) ^ key.value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let pages = self.pages.len() as u128;
        usize::try_from((u128::from(mixed) * pages) >> 64).expect("less than the number of pages")
    }

    pub fn get(&self, key: &Key) -> Option<&Bucket> {
        self.pages[self.page_of(key)].buckets.get(key)
    }

    pub fn set(&mut self, key: Key, bucket: Bucket) {
        let place = self.page_of(&key);
        let page = &mut self.pages[place];
        let after = digest(&key, &bucket);
        let before = Arc::make_mut(&mut page.buckets).insert(key, bucket);
        let before = before.map_or(0, |bucket| digest(&key, &bucket));
        page.digest = page.digest.wrapping_add(after).wrapping_sub(before);
    }

    pub fn remove(&mut self, key: &Key) {
        let place = self.page_of(key);
        let page = &mut self.pages[place];
        if let Some(bucket) = Arc::make_mut(&mut page.buckets).remove(key) {
            page.digest = page.digest.wrapping_sub(digest(key, &bucket));
        }
    }

    /// At most `most` buckets of a page behind `after`.
    pub fn chunk(&self, page: usize, after: Option<Key>, most: usize) -> Vec<(Key, Bucket)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.pages[page].buckets.range((from, Bound::Unbounded));
        rest.take(most).map(|(key, bucket)| (*key, bucket.clone())).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Bucket)> {
        self.pages.iter().flat_map(|page| page.buckets.iter())
    }

    /// From the pages' sums, without a look at a bucket.
    pub fn digest(&self, into: &mut Digester) {
        for page in &self.pages {
            into.number(page.digest);
        }
    }

    /// Whether the kept sums are those of the buckets.
    pub fn sums_are_true(&self) -> bool {
        self.pages.iter().all(|page| {
            let sum =
                page.buckets.iter().fold(0_u64, |sum, (key, bucket)| sum.wrapping_add(digest(key, bucket)));
            sum == page.digest
        })
    }
}

fn digest(key: &Key, bucket: &Bucket) -> u64 {
    let mut digester = Digester::new();
    digester.number(key.limit.0).number(key.tenant).number(key.value);
    bucket.digest(&mut digester);
    digester.finish()
}
