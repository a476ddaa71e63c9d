//! Random operations of two clients against a model.
