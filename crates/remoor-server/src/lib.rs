//! remoor-server
