//! Authenticated in, admitted out: spends tokens of this node's leases, and asks the cluster only when they run out.
