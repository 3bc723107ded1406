//! The flags that every command takes.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rotacast_protocol::{ClusterName, OperatorName};

#[derive(Args)]
pub(crate) struct Global {
    /// The broadcaster's address; https needs --ca. Name all replicas (with commas, or repeat it): the leader is found.
    #[arg(
        long,
        global = true,
        env = "ROTACAST_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7400"
    )]
    pub(crate) server: Vec<String>,
    /// The operator who gives the order; `operator` if the key is the one that `rotacast dev` made.
    #[arg(long, global = true, env = "ROTACAST_OPERATOR", value_name = "NAME")]
    pub(crate) operator: Option<OperatorName>,
    /// The operator's private key; ./rotacast-data/keys/operator.key if that exists.
    #[arg(long, global = true, env = "ROTACAST_OPERATOR_KEY", value_name = "FILE")]
    pub(crate) operator_key: Option<PathBuf>,
    /// A token for reading, where the server asks for one; `rotacast token` makes it.
    #[arg(long, global = true, env = "ROTACAST_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The cluster that an order is for; without it, the server's own.
    #[arg(long, global = true, env = "ROTACAST_CLUSTER", value_name = "NAME")]
    pub(crate) cluster: Option<ClusterName>,
    /// The authority (PEM) of the server's certificate.
    #[arg(long, global = true, env = "ROTACAST_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// This client's own certificate (PEM), where the server asks for one.
    #[arg(long, global = true, env = "ROTACAST_CLIENT_CERT", value_name = "FILE", requires = "client_key")]
    pub(crate) client_cert: Option<PathBuf>,
    /// The private key (PEM) of --client-cert.
    #[arg(long, global = true, env = "ROTACAST_CLIENT_KEY", value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// Tables for people, with all columns if wide; JSON or YAML for programs.
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Wide,
    Json,
    Yaml,
}
