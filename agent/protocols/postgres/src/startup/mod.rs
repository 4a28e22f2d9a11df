//! The client's side of start-up: TLS, versions, parameters, cancel requests.
