//! PostgreSQL under the suite, and what only PostgreSQL has, on a real server and with the rights that the
//! documentation asks for.

mod cases;
mod fixture;
mod server;

rotacast_provider::conformance_every!(fixture::start);
rotacast_provider::conformance_logins!(fixture::start);
