//! The battery, and an agent that governs its attacker.

use std::{
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tidegate_attacks::{Battery, Row, Target};
use tidegate_tests::{Agent, Settings, governed_uid, random};

/// How long a starved agent may take to miss something.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is passed to the attacker, and a resource that nobody serves.
const BUNDLE: &str = "\
tidegate: 1
name: attacks
subjects:
  attacker: {users: [\"${user}\"]}
resources:
  nowhere:
    protocol: postgres
    addresses: [\"${declared}\"]
    tls: {mode: disable}
    credential: nobody
passes:
  - subjects: [attacker]
    to: [${passed}]
rules:
  - name: sign-in
    subjects: [attacker]
    resources: [nowhere]
    allow: [{action: login}]
";

/// A battery with an agent.
pub(crate) struct Stage {
    pub(crate) battery: Battery,
    user: u32,
    agent: Option<Agent>,
}

impl Stage {
    /// Without an agent as yet.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { battery: Battery::new()?, user: governed_uid(), agent: None })
    }

    /// Starts the agent.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        let canary = self.battery.canary();
        let passed: Vec<String> = canary.passed().iter().map(|address| format!("\"{address}\"")).collect();
        let bundle = BUNDLE
            .replace("${user}", &self.user.to_string())
            .replace("${declared}", &canary.declared().to_string())
            .replace("${passed}", &passed.join(", "));
        self.agent = Some(Agent::start(&Settings {
            binary: &binary()?,
            bundle: &[("bundle.yaml", &bundle)],
            credentials: &[("nobody.user", "nobody"), ("nobody.password", &random("attacked")?)],
        })?);
        Ok(())
    }

    /// The agent.
    pub(crate) fn agent(&self) -> Result<&Agent> {
        self.agent.as_ref().context("the agent is not there")
    }

    /// What is known before there is an agent.
    pub(crate) fn governed(&self) -> Target {
        Target {
            governed: self.user,
            passes_canary: true,
            declared: Some(self.battery.canary().declared()),
            ..Target::default()
        }
    }

    /// The running agent as a target.
    pub(crate) fn target(&self) -> Result<Target> {
        let agent = self.agent()?;
        let status: Value = serde_json::from_str(&agent.ask(&["status", "--json"])?)?;
        let port = status.get("v4_port").and_then(Value::as_u64).context("status without v4_port")?;
        Ok(Target {
            proxy_port: Some(port.try_into()?),
            agent: Some(agent.process()?.id()),
            admin: Some(agent.runtime().join("admin.sock")),
            state: Some(agent.state()),
            pins: Some(agent.pins().to_owned()),
            ..self.governed()
        })
    }

    /// Whether this kernel takes LSM programs, by `tidegate doctor`.
    pub(crate) fn asks_programs(&self) -> Result<(bool, bool)> {
        let found: Value = serde_json::from_slice(&self.agent()?.attempt(&["doctor", "--json"])?.stdout)?;
        let features = found.get("features").and_then(Value::as_array).context("doctor without features")?;
        let has = |feature: &str| {
            let found = features.iter().find(|found| found["feature"] == feature);
            Ok::<_, anyhow::Error>(
                found.with_context(|| format!("doctor lacks {feature}"))?["missing"].is_null(),
            )
        };
        Ok((has("LSM programs refuse")?, has("connects to Unix sockets are refused")?))
    }

    /// Checks that the agent survived, and answers.
    pub(crate) fn agent_is_alive(&self) -> Result<()> {
        self.agent()?.ask(&["status"]).context("the agent did not survive the attacks")?;
        Ok(())
    }

    /// Leaves the agent no descriptor and no page of memory beyond those that it has. Returns when it has missed something, or
    /// has ended of it, with the connections that it can't accept.
    pub(crate) fn starve_agent(&self) -> Result<Vec<TcpStream>> {
        let (agent, port) = (self.agent()?, self.target()?.proxy_port.context("no port")?);
        let id = agent.process()?.id().to_string();
        let limited = Command::new("prlimit").args(["--pid", &id, "--nofile=3:3", "--as=1:1"]).status()?;
        ensure!(limited.success(), "prlimit failed");
        let (mut waiting, deadline) = (Vec::new(), Instant::now() + PATIENCE);
        while !agent.read_log()?.contains("cannot accept connections") {
            ensure!(Instant::now() < deadline, "the agent misses nothing:\n{}", agent.read_log()?);
            let Ok(connection) = TcpStream::connect(("127.0.0.1", port)) else { break };
            waiting.push(connection);
            thread::park_timeout(Duration::from_millis(10));
        }
        Ok(waiting)
    }

    /// Checks that no secret is in what came of the attacks, nor anywhere else that the agent shows things.
    pub(crate) fn shows_no_secret(&self, rows: &[Row]) -> Result<()> {
        self.agent()?.shows_no_secret(&serde_json::to_string(rows)?)
    }

    /// Kills the agent, as a crash would.
    pub(crate) fn kill_agent(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.kill();
        }
    }
}

/// The binary under test, as `cargo xtask test` built it.
fn binary() -> Result<PathBuf> {
    std::env::var_os("TIDEGATE_BINARY")
        .map(PathBuf::from)
        .context("TIDEGATE_BINARY is not set: run `cargo xtask test e2e`")
}
