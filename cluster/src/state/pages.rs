//! Where buckets lie, the sum of their digests, and the tokens that are out of them.

use super::bucket::Bucket;
use super::digest::Digester;
use super::ids::{Key, Tokens};
use super::paged::{Paged, Place};

/// Pages of a real ledger: some 60 buckets each where there are a million, so that the copy that a change makes while a
/// snapshot shares its page takes about as long as the change.
pub(super) const PAGES: usize = 1 << 14;

impl Place for Key {
    fn number(&self) -> u64 {
        self.limit.0 ^ self.tenant.rotate_left(32) ^ self.value
    }
}

/// All buckets. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    buckets: Paged<Key, Bucket>,
    /// Wrapping sum of the buckets' digests.
    digest: u64,
    /// Tokens out in leases.
    out: Tokens,
}

impl Pages {
    pub fn new(count: usize) -> Self {
        Self { buckets: Paged::new(count), digest: 0, out: 0 }
    }

    pub fn count(&self) -> usize {
        self.buckets.count()
    }

    pub fn get(&self, key: &Key) -> Option<&Bucket> {
        self.buckets.get(key)
    }

    /// Sets a bucket; whether the key had none before.
    pub fn set(&mut self, key: Key, bucket: Bucket) -> bool {
        self.digest = self.digest.wrapping_add(digest(&key, &bucket));
        self.out += bucket.out_total();
        let before = self.buckets.set(key, bucket);
        if let Some(bucket) = &before {
            self.leave_out(&key, bucket);
        }
        before.is_none()
    }

    pub fn remove(&mut self, key: &Key) {
        if let Some(bucket) = self.buckets.remove(key) {
            self.leave_out(key, &bucket);
        }
    }

    fn leave_out(&mut self, key: &Key, bucket: &Bucket) {
        self.digest = self.digest.wrapping_sub(digest(key, bucket));
        self.out -= bucket.out_total();
    }

    /// Tokens out in leases of all buckets, those included that end before anybody looks at their bucket again.
    pub fn out(&self) -> Tokens {
        self.out
    }

    /// At most `most` buckets of a page behind `after`.
    pub fn chunk(&self, page: usize, after: Option<Key>, most: usize) -> Vec<(Key, Bucket)> {
        self.buckets.chunk(page, after, most).to_vec()
    }

    pub fn iter(&self) -> impl Iterator<Item = &(Key, Bucket)> {
        self.buckets.iter()
    }

    /// From the kept sum, without a look at a bucket.
    pub fn digest(&self, into: &mut Digester) {
        into.number(self.digest);
    }

    /// Whether the kept sums are those of the buckets.
    pub fn sums_are_true(&self) -> bool {
        let sum = self.iter().fold(0_u64, |sum, (key, bucket)| sum.wrapping_add(digest(key, bucket)));
        let out: Tokens = self.iter().map(|(_, bucket)| bucket.out_total()).sum();
        (sum, out) == (self.digest, self.out)
    }
}

fn digest(key: &Key, bucket: &Bucket) -> u64 {
    let mut digester = Digester::new();
    digester.number(key.limit.0).number(key.tenant).number(key.value);
    bucket.digest(&mut digester);
    digester.finish()
}
