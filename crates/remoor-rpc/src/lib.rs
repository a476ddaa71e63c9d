//! remoor-rpc
