//! remoor-flow
