//! Questions that wait for people, and their answers, kept durably.
//!
//! An [`Inquiry`] is one question with everything that happened to it. What may happen is decided by its own methods,
//! which are pure; the [`Desk`] changes it by comparing and swapping, so that of two answers at once one comes first,
//! whoever gave them and through whichever agent of a fleet.

#![forbid(unsafe_code)]

mod clock;
mod desk;
mod inquiry;
mod key;
mod letter;
mod person;
mod refused;
mod say;
pub mod store;
pub mod webhooks;

pub use clock::Clock;
pub use desk::{Desk, Failed, Limits, Overview};
pub use inquiry::{Event, Fact, Inquiry, State, Term};
pub use letter::{Audience, Letter, Told};
pub use person::{Person, Who};
pub use refused::Refused;
pub use say::{Answered, Say};
