//! remoor-nfs
