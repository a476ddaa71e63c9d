//! Making, removing and renaming.
