//! What the verifier makes of the programs, for the kernel matrix.

use std::path::Path;

use aya::programs::loaded_programs;
use tidegate_kernel::{Kernel, KernelError, Pins, probe};

/// A quarter of what the verifier bears (`BPF_COMPLEXITY_LIMIT_INSNS`): kernels differ by a factor of three.
const MOST_INSTRUCTIONS: u32 = 250_000;

/// The guest ends after the tests, and what is pinned with it.
fn load(name: &str) -> Result<Kernel, KernelError> {
    Kernel::load(Pins::hold(&Path::new("/sys/fs/bpf").join(name))?)
}

#[tokio::test]
#[ignore = "needs a guest: cargo xtask vm-test"]
async fn the_verifier_takes_every_program() {
    let kernel = load("verifier").unwrap();
    // Guests ask BPF programs: a refused one of the shield's must not pass for a kernel that asks none.
    assert_eq!((kernel.unshielded(), kernel.leaves_unix_open()), (None, None));
    // In a guest of its own nobody else's programs are loaded.
    let mut programs = 0;
    for program in loaded_programs() {
        let program = program.unwrap();
        programs += 1;
        // From 5.16.
        if let Some(instructions) = program.verified_instruction_count() {
            let name = program.name_as_str().unwrap();
            println!("VERIFIED {name} {instructions}");
            assert!(
                instructions <= MOST_INSTRUCTIONS,
                "{name} takes the verifier {instructions} instructions"
            );
        }
    }
    assert!(programs >= 39, "{programs} programs are loaded");
}

#[tokio::test]
#[ignore = "needs an old guest: cargo xtask vm-test"]
async fn a_kernel_that_lacks_something_is_refused_by_what_it_lacks() {
    let refusal = load("lacking").unwrap_err().to_string();
    assert!(refusal.contains("the network namespace's cookie"), "{refusal}");
    let missing: Vec<_> = probe().into_iter().filter(|probe| probe.missing.is_some()).collect();
    assert!(missing.iter().any(|probe| probe.feature == "network-namespace cookie"), "{missing:#?}");
}
