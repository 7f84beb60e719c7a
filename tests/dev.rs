//! One node in front of one's own service, without a file.

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{PATIENCE, Upstream, port, request};

#[test]
fn dev_limits_a_service_from_its_first_minute() {
    support::in_calm(|| {
        // given somebody's service, and one command
        let upstream = Upstream::start();
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], port()));
        let admin = std::net::SocketAddr::from(([127, 0, 0, 1], port()));
        let mut dev = Command::new(env!("CARGO_BIN_EXE_quorumgate"))
            .args(["dev", "--limit", "5/min", "--upstream", &format!("http://{}", upstream.address)])
            .args(["--listen", &listen.to_string(), "--admin", &admin.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary was built");
        let until = Instant::now() + PATIENCE;
        while request(admin, "GET", "/readyz", &[], "").map_or(true, |answer| answer.status != 200) {
            assert!(Instant::now() < until, "dev was not ready in time");
            std::thread::sleep(Duration::from_millis(50));
        }
        // when six requests come, then five are served and the sixth is told when to come back
        let statuses: Vec<u16> =
            (0..6).map(|_| request(listen, "GET", "/", &[], "").expect("it listens").status).collect();
        // It ends with the test, whatever the statuses were.
        dev.kill().expect("it was running");
        dev.wait().expect("it can be waited for");
        assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    });
}
