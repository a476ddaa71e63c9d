//! remoor-client
