mod property;
mod rules;
mod server;
