//! A perfect leader in a few lines: exact buckets with leases, as `quota.md` 3 says, without log, clock error or sizing.

use std::collections::BTreeMap;

use cluster::lease::{Ask, AskReply, Granted};
use cluster::state::ids::{Key, LeaseId};
use cluster::world::BootNs;
use config::quota::Limit;

/// Time to live of a lease in the ledger.
pub const TTL_NS: u64 = 1_000_000_000;

struct Lease {
    lid: LeaseId,
    out: u64,
    expires: u64,
    spent: u64,
}

struct Bucket {
    central: i64,
    at: u64,
    rest: u64,
    lease: Option<Lease>,
}

/// The leader.
pub struct Leader {
    pub limit: Limit,
    buckets: BTreeMap<Key, Bucket>,
    lids: u64,
    last_seq: u64,
}

impl Leader {
    pub fn new(limit: Limit) -> Self {
        Self { limit, buckets: BTreeMap::new(), lids: 0, last_seq: 0 }
    }

    /// Applies a batch; none if a later one was applied before.
    pub fn apply(&mut self, ask: &Ask, now: BootNs) -> Option<AskReply> {
        if ask.seq <= self.last_seq {
            return None;
        }
        self.last_seq = ask.seq;
        let limit = self.limit;
        let items = ask.items.iter().map(|item| {
            let full = Bucket { central: limit.burst as i64, at: now.0, rest: 0, lease: None };
            let bucket = self.buckets.entry(item.key).or_insert(full);
            if let Some(end) = bucket.lease.as_ref().map(|l| l.expires).filter(|end| *end <= now.0) {
                refill(bucket, limit, end);
                bucket.lease = None;
            }
            refill(bucket, limit, now.0);
            let mut keep = item.held == 0;
            match bucket.lease.take() {
                Some(mut lease) if Some(lease.lid) == item.lid => {
                    assert!(item.held <= lease.out, "a gateway holds no more than it was given");
                    let back = (lease.out - item.held).checked_sub(item.spent - lease.spent);
                    bucket.central += back.expect("what is not held was spent or comes back") as i64;
                    (lease.out, lease.spent, keep) = (item.held, item.spent, true);
                    bucket.lease = Some(lease);
                }
                Some(lease) => bucket.central += lease.out as i64,
                None => {}
            }
            let most = item.want.max(item.need + item.held).saturating_sub(item.held);
            let grant =
                if bucket.central >= item.min.max(1) as i64 { most.min(bucket.central as u64) } else { 0 };
            bucket.central -= grant as i64;
            if grant > 0 && bucket.lease.is_none() {
                self.lids += 1;
                bucket.lease = Some(Lease { lid: LeaseId(self.lids), out: 0, expires: 0, spent: 0 });
            }
            if let Some(lease) = &mut bucket.lease {
                lease.out += grant;
                lease.expires = lease.expires.max(now.0 + TTL_NS);
            }
            bucket.lease.take_if(|lease| lease.out == 0);
            let short = item.need > 0 && grant < item.min.max(1);
            Granted {
                key: item.key,
                keep,
                lid: bucket.lease.as_ref().map(|l| l.lid),
                grant,
                ttl_ns: bucket.lease.as_ref().map_or(0, |l| l.expires - now.0),
                retry_after_ns: if short { limit.per_ns / limit.tokens } else { 0 },
                hold: false,
                tight: false,
                plenty: false,
                left: bucket.central,
                limit,
                unknown: false,
                full: false,
            }
        });
        Some(AskReply { session: ask.session, seq: ask.seq, items: items.collect() })
    }
}

fn refill(bucket: &mut Bucket, limit: Limit, now: u64) {
    let fresh = now.saturating_sub(bucket.at) * limit.tokens + bucket.rest;
    bucket.at = bucket.at.max(now);
    let out = bucket.lease.as_ref().map_or(0, |l| l.out) as i64;
    let room = limit.burst as i64 - bucket.central - out;
    let add = (fresh / limit.per_ns) as i64;
    bucket.rest = if add >= room { 0 } else { fresh % limit.per_ns };
    bucket.central += add.min(room.max(0));
}
