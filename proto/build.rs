//! Compiles the contract without `protoc` (protox is a protobuf compiler in Rust), and writes the
//! descriptor set that gRPC reflection serves.

use std::path::PathBuf;

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["rotacast/v1/instance.proto", "rotacast/v1/admin.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["."])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("rotacast.v1.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        // These carry a value, or may (an envelope's payload can be an operator's Put): no generated
        // `Debug`, so that none can be printed. The envelope has one by hand that leaves the payload out.
        .skip_debug([
            ".rotacast.v1.FetchReply",
            ".rotacast.v1.Put",
            ".rotacast.v1.OperatorCommand.action",
            ".rotacast.v1.OperatorCommand",
            ".rotacast.v1.Envelope",
        ])
        .compile_fds(descriptors)?;
    Ok(())
}
