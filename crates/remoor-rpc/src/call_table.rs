//! Outstanding calls by xid.
