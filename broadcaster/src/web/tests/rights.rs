//! What roles open and close on each door of an address.

use super::*;

impl Rig {
    /// Only ada, with one role.
    fn with_role(role: Role) -> Self {
        let rig = Self::new(true, true);
        rig.give_role(role);
        rig
    }

    fn give_role(&self, role: Role) {
        let ada = Operator {
            tokens: vec![self.operator.digest()],
            roles: ["mine".parse().unwrap()].into(),
            ..Operator::default()
        };
        let people = BTreeMap::from([(OperatorName::new("ada").unwrap(), ada)]);
        self.operators.send_replace(Arc::new(Operators::new(people, [("mine".parse().unwrap(), role)].into())));
    }

    async fn grpc(&self, method: &str, message: &impl prost::Message) -> Response {
        let bytes = message.encode_to_vec();
        let frame = [&[0, 0, 0, 0, u8::try_from(bytes.len()).unwrap()], &*bytes].concat();
        let request = Request::builder().method(Method::POST).uri(format!("/rotacast.v1.Admin/{method}"));
        let bearer = format!("Bearer {}", self.operator.text());
        let request = request.header(header::AUTHORIZATION, bearer).header(header::CONTENT_TYPE, "application/grpc");
        self.send(request, frame).await
    }
}

fn code(response: &Response) -> Option<&str> {
    response.headers().get("grpc-status").map(|status| status.to_str().unwrap())
}

#[tokio::test]
async fn a_role_without_a_reading_opens_no_door_to_it() {
    let rig = Rig::with_role(Role { read: [].into(), ..role("*", &[OrderKind::Put]) });
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    for path in READ_OVER_HTTP {
        let answer = rig.get(path, &cookie).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path}");
        let told = read(answer).await["error"].to_string();
        assert!(told.contains("ada may not read") && told.contains("[operators.ada]"), "{path}: {told}");
    }
    for path in read_over_grpc() {
        let method = path.rsplit('/').next().unwrap();
        let answer = rig.grpc(method, &v1::WatchRequest::default()).await;
        assert_eq!(code(&answer), Some("7"), "{path}");
    }
}

#[tokio::test]
async fn every_reading_has_its_doors() {
    for (what, paths) in [
        (Reading::Status, &["/api/overview/events", "/api/secret/events?secret=team/00000", "/api/requests"][..]),
        (Reading::Fleet, &["/api/instances", "/api/fleet"]),
        (Reading::Audit, &["/api/audit"]),
        (Reading::Metrics, &["/metrics"]),
    ] {
        let rig = Rig::with_role(Role { read: [what].into(), ..role("*", &[]) });
        let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
        for path in READ_OVER_HTTP {
            let expected = if paths.contains(&path) { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(rig.get(path, &cookie).await.status(), expected, "{what} {path}");
        }
    }
}

#[tokio::test]
async fn only_the_secrets_of_a_role_are_shown_on_every_door() {
    let rig = Rig::with_role(role("team/00000", &[]));
    rig.findings.raise(Topic::Import, "/secrets/a", Level::Warning, "it is empty".into(), "write a value");
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    // The overview has the one secret, and no findings: those name others.
    let told = events(rig.get("/api/overview/events", &cookie).await, |name, _| name == "secrets").await;
    let secrets = told.last().unwrap().1["secrets"].as_array().unwrap();
    assert_eq!((secrets.len(), &secrets[0]["secret"]), (1, &json!("team/00000")));
    let answer = rig.get("/api/secret/events?secret=team/00001", &cookie).await;
    assert_eq!(refused(answer).await, (403, "forbidden".into()));

    let status = rig.grpc("Status", &v1::StatusRequest::default()).await;
    let body = to_bytes(status.into_body(), usize::MAX).await.unwrap();
    let status = v1::StatusReply::decode(&body[5..]).unwrap();
    assert_eq!(status.secrets.iter().map(|it| &*it.secret).collect::<Vec<_>>(), ["team/00000"]);
    let other = v1::StatusRequest { secret: "team/00001".into(), brief: false };
    assert_eq!(code(&rig.grpc("Status", &other).await), Some("7"));
    assert_eq!(code(&rig.grpc("Watch", &v1::WatchRequest { secret: "team/00001".into() }).await), Some("7"));
    let other = v1::InstancesRequest { secret: "team/00001".into(), not_on: 0 };
    assert_eq!(code(&rig.grpc("Instances", &other).await), Some("7"));
    assert_eq!(code(&rig.grpc("Doctor", &v1::DoctorRequest {}).await), Some("7"));

    // All instances are of that secret; those of another one are not named as unknown either.
    let page = read(rig.get("/api/instances", &cookie).await).await;
    assert_eq!((&page["total"], &page["unanswered"]), (&json!(INSTANCES), &json!([])));
    rig.give_role(role("team/00001", &[]));
    let page = read(rig.get("/api/instances", &cookie).await).await;
    assert_eq!((&page["total"], &page["matching"]), (&json!(0), &json!(0)));
    assert_eq!(read(rig.get("/api/fleet", &cookie).await).await["groups"], json!([]));
}

#[tokio::test]
async fn the_audit_log_is_shown_as_far_as_the_role_goes() {
    let rig = Rig::with_role(role("team/odd", &[]));
    let log = AuditLog::open(rig.folder.path().join("audit.jsonl"), small_files(), signer()).unwrap();
    for number in 1..=20_u64 {
        let secret = if number.is_multiple_of(2) { "team/even" } else { "team/odd" };
        log.append(Entry::new("ada", "paused").secret(secret.parse().unwrap())).await.unwrap();
    }
    log.append(Entry::new("broadcaster", "about_no_secret")).await.unwrap();
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    let page = read(rig.get("/api/audit", &cookie).await).await;
    let secrets: Vec<_> = page["entries"].as_array().unwrap().iter().map(|it| it["secret"].clone()).collect();
    assert_eq!(secrets, vec![json!("team/odd"); 10]);
    rig.give_role(role("*", &[]));
    let page = read(rig.get("/api/audit", &cookie).await).await;
    assert!(page["entries"].as_array().unwrap().len() > 20, "{page}");
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_open_follow_the_rights_of_the_moment() {
    let rig = Rig::with_role(role("*", &[]));
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    // Of the overview, nothing is left to show; it ends once nothing may be read. No change of a secret is waited for.
    let over = |name: &str, data: &Value| {
        if name == "secrets" && data["reset"] == true {
            match data["secrets"].as_array().unwrap().is_empty() {
                false => rig.give_role(role("elsewhere", &[])),
                true => rig.give_role(Role { read: [Reading::Fleet].into(), ..role("*", &[]) }),
            }
        }
        name == "problem"
    };
    let told = events(rig.get("/api/overview/events", &cookie).await, over).await;
    let secrets: Vec<_> = told.iter().filter(|(name, _)| name == "secrets").map(|(_, data)| data).collect();
    assert_eq!((&secrets.last().unwrap()["reset"], &secrets.last().unwrap()["secrets"]), (&json!(true), &json!([])));
    assert_eq!(told.last().unwrap().1["error"]["kind"], "forbidden");

    rig.give_role(role("*", &[]));
    let over = |name: &str, _: &Value| {
        if name == "secret" {
            rig.give_role(role("elsewhere", &[]));
        }
        name == "problem"
    };
    let told = events(rig.get("/api/secret/events?secret=team/00000", &cookie).await, over).await;
    assert_eq!(told.last().unwrap().1["error"]["kind"], "forbidden");

    rig.give_role(role("*", &[]));
    let mut watch = rig.grpc("Watch", &v1::WatchRequest::default()).await.into_body().into_data_stream();
    watch.next().await.unwrap().unwrap();
    rig.give_role(Role { read: [Reading::Fleet].into(), ..role("*", &[]) });
    // Returns only because the stream ends.
    while let Some(Ok(_)) = watch.next().await {}
}

#[tokio::test]
async fn an_order_that_no_role_allows_is_refused_by_name_and_on_record() {
    let rig = Rig::with_role(role("team/*", &[OrderKind::Put]));
    let cookie = rig.sign_in(rig.operator.text()).await.unwrap();
    let answer = rig.act(&cookie, &json!({ "secret": "team/00000", "action": "rotate" })).await;
    assert_eq!(answer.status(), StatusCode::FORBIDDEN);
    let told = read(answer).await["error"].clone();
    assert_eq!(told["problem"], "ada may not rotate team/00000 (roles: mine)");
    assert!(told["fix"].as_str().unwrap().contains("\"rotate\" in orders and team/00000 in secrets"), "{told}");
    assert!(rig.control.commands.lock().unwrap().is_empty());
    let entries = rig.control.entries.lock().unwrap();
    assert!(format!("{entries:?}").contains("order_denied"), "{entries:?}");
}

/// A request as it comes over the network from there.
fn from(address: &str, path: &str, token: Option<&str>) -> axum::http::request::Builder {
    let remote_addr = Some(format!("{address}:4711").parse().unwrap());
    let info = tonic::transport::server::TcpConnectInfo { local_addr: None, remote_addr };
    let request = Request::builder().uri(path).extension(info);
    match token {
        Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
        None => request,
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_tokens_are_limited_on_every_door_and_lock_no_one_out() {
    for door in ["/api/fleet", "/rotacast.v1.Admin/Doctor", "/api/sign-in"] {
        let rig = Rig::new(true, true);
        let ask = async |address: &str, token: &str| {
            let request = match door {
                "/api/fleet" => return rig.send(from(address, door, Some(token)), ()).await,
                "/api/sign-in" => from(address, door, None).header(header::CONTENT_TYPE, "application/json"),
                _ => from(address, door, Some(token)).header(header::CONTENT_TYPE, "application/grpc"),
            };
            let body =
                if door == "/api/sign-in" { json!({ "token": token }).to_string().into_bytes() } else { vec![0; 5] };
            rig.send(request.method(Method::POST), body).await
        };
        let limited =
            |response: &Response| response.status() == StatusCode::TOO_MANY_REQUESTS || code(response) == Some("8");
        let right = rig.operator.text();
        for _ in 0..crate::sign_ins::PER_SOURCE {
            let refused = ask("10.0.0.1", Token::generate().text()).await;
            assert!(
                refused.status() == StatusCode::UNAUTHORIZED || code(&refused) == Some("16"),
                "{door}: {refused:?}"
            );
        }
        assert!(limited(&ask("10.0.0.1", Token::generate().text()).await), "{door}");
        // An operator behind the same proxy signs in all the same.
        assert!(!limited(&ask("10.0.0.1", right).await), "{door}");
        assert!(!limited(&ask("10.0.0.2", Token::generate().text()).await), "{door}: elsewhere");
        // The limit is one for all doors.
        let other = rig.send(from("10.0.0.1", "/metrics", Some(Token::generate().text())), ()).await;
        assert_eq!(other.status(), StatusCode::TOO_MANY_REQUESTS, "{door}");
        let other = rig.send(from("10.0.0.1", "/metrics", Some(right)), ()).await;
        assert_ne!(other.status(), StatusCode::TOO_MANY_REQUESTS, "{door}");
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        assert!(!limited(&ask("10.0.0.1", Token::generate().text()).await), "{door}: after a minute");
    }
}
