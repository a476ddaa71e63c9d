//! remoor-drill
