//! One form for every way to write an address.

use aya_ebpf::bindings::bpf_sock_addr;
use tidegate_abi::Address;

/// Third word of an IPv4-mapped address, in network order.
const MAPPED: u32 = 0xffff_u32.to_be();
/// 127.0.0.1, in network order.
const LOOPBACK_V4: u32 = 0x7f00_0001_u32.to_be();
/// Last word of ::1, in network order.
const LOOPBACK_V6: u32 = 1_u32.to_be();

/// An address (IPv4 as IPv4-mapped, words in network order) and a port (host order).
#[derive(Clone, Copy, Default)]
pub struct Endpoint {
    /// The address.
    pub words: [u32; 4],
    /// The port.
    pub port: u16,
}

impl Endpoint {
    /// From an IPv4 address in network order.
    #[inline(always)]
    pub fn v4(address: u32, port: u16) -> Self {
        Self { words: [0, 0, MAPPED, address], port }
    }

    /// What the caller of a socket-address hook for IPv4 asked for.
    ///
    /// # Safety
    ///
    /// `asked` is the hook's context.
    #[inline(always)]
    pub unsafe fn asked_v4(asked: *const bpf_sock_addr) -> Self {
        // SAFETY: the context is readable; volatile keeps the accesses as wide as the verifier wants them.
        unsafe { Self::v4((&raw const (*asked).user_ip4).read_volatile(), port(asked)) }
    }

    /// What the caller of a socket-address hook for IPv6 asked for.
    ///
    /// # Safety
    ///
    /// `asked` is the hook's context.
    #[inline(always)]
    pub unsafe fn asked_v6(asked: *const bpf_sock_addr) -> Self {
        // SAFETY: as above; the array has four words.
        unsafe {
            let words = (&raw const (*asked).user_ip6).cast::<u32>();
            let words = [
                words.read_volatile(),
                words.add(1).read_volatile(),
                words.add(2).read_volatile(),
                words.add(3).read_volatile(),
            ];
            Self { words, port: port(asked) }
        }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }

    /// Whether this is the address that the agent listens on: 127.0.0.1 or ::1.
    #[inline(always)]
    pub fn is_loopback(&self) -> bool {
        let [a, b, c, last] = self.words;
        if self.is_v4() { last == LOOPBACK_V4 } else { (a | b | c) == 0 && last == LOOPBACK_V6 }
    }

    /// Whether only this host's loopback interface may carry it: 127.0.0.0/8 and ::1.
    #[inline(always)]
    pub fn is_on_loopback(&self) -> bool {
        if self.is_v4() { self.words[3].to_ne_bytes()[0] == 127 } else { self.is_loopback() }
    }

    /// The address that the kernel will take this for: the unspecified address means loopback.
    #[inline(always)]
    pub fn meant(self) -> Self {
        let [a, b, c, last] = self.words;
        let last = match last {
            0 if self.is_v4() => LOOPBACK_V4,
            0 if (a | b | c) == 0 => LOOPBACK_V6,
            last => last,
        };
        Self { words: [a, b, c, last], port: self.port }
    }

    /// The loopback address of the same family, at `port`.
    #[inline(always)]
    pub fn loopback(&self, port: u16) -> Self {
        if self.is_v4() { Self::v4(LOOPBACK_V4, port) } else { Self { words: [0, 0, 0, LOOPBACK_V6], port } }
    }

    /// The address, as maps and user space have it.
    #[inline(always)]
    pub fn address(&self) -> Address {
        // SAFETY: four words are sixteen bytes, and both take any bit pattern.
        unsafe { core::mem::transmute::<[u32; 4], Address>(self.words) }
    }

    /// The unspecified address of the same family.
    #[inline(always)]
    pub fn unspecified(&self) -> Self {
        if self.is_v4() { Self::v4(0, 0) } else { Self { words: [0; 4], port: 0 } }
    }

    /// From an address as maps have it.
    #[inline(always)]
    pub fn new(address: &Address, port: u16) -> Self {
        // SAFETY: sixteen bytes are four words, and both take any bit pattern.
        Self { words: unsafe { core::mem::transmute::<Address, [u32; 4]>(*address) }, port }
    }

    /// Writes this into the context of an IPv4 hook.
    ///
    /// # Safety
    ///
    /// `asked` is the context of a hook for IPv4 that may rewrite the address.
    #[inline(always)]
    pub unsafe fn write_v4(&self, asked: *mut bpf_sock_addr) {
        // SAFETY: the fields are writable in such a hook.
        unsafe {
            (&raw mut (*asked).user_ip4).write_volatile(self.words[3]);
            (&raw mut (*asked).user_port).write_volatile(u32::from(self.port.to_be()));
        }
    }

    /// Writes this into the context of an IPv6 hook.
    ///
    /// # Safety
    ///
    /// `asked` is the context of a hook for IPv6 that may rewrite the address.
    #[inline(always)]
    pub unsafe fn write_v6(&self, asked: *mut bpf_sock_addr) {
        // SAFETY: the fields are writable in such a hook; the array has four words.
        unsafe {
            let words = (&raw mut (*asked).user_ip6).cast::<u32>();
            words.write_volatile(self.words[0]);
            words.add(1).write_volatile(self.words[1]);
            words.add(2).write_volatile(self.words[2]);
            words.add(3).write_volatile(self.words[3]);
            (&raw mut (*asked).user_port).write_volatile(u32::from(self.port.to_be()));
        }
    }
}

/// # Safety
///
/// `asked` is a socket-address hook's context.
#[inline(always)]
unsafe fn port(asked: *const bpf_sock_addr) -> u16 {
    // SAFETY: the field is readable in every such hook.
    u16::from_be(unsafe { (&raw const (*asked).user_port).read_volatile() } as u16)
}
