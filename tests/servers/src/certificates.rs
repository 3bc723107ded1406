//! Certificates made by `openssl`.

use std::path::Path;

use tokio::process::Command;

/// Makes an authority (`ca.pem`, `ca.key`), and for each name a certificate of it for the loopback (`NAME.pem`, `NAME.key`,
/// PKCS#8), in `folder`. `false` if there is no `openssl`, after counting the test as skipped ([`crate::skip`]).
///
/// # Panics
/// If openssl fails, or the folder cannot be written.
pub async fn make_certificates(folder: &Path, names: &[&str]) -> bool {
    const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("the folder is ours");
    let authority = format!("req -x509 {NEW_KEY} -keyout ca.key -out ca.pem -subj /CN=test-ca -days 2");
    if !openssl(folder, &authority).await {
        crate::skip("openssl");
        return false;
    }
    for name in names {
        openssl(folder, &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj /CN={name}")).await;
        let sign = format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile names"
        );
        openssl(folder, &sign).await;
    }
    true
}

/// Runs `openssl`; `false` if there is none.
async fn openssl(folder: &Path, arguments: &str) -> bool {
    let run = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().await;
    let Ok(output) = run else { return false };
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    true
}
