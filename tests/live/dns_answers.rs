//! DNS answers as seen by the kernel, without servers: the virtual machines of tests/kernels lack what the tests in
//! dns.rs need.

use std::{
    io::{Read, Write},
    net::{IpAddr, TcpListener, TcpStream, UdpSocket},
};

use crate::common::{
    self, Trace,
    net::{V4, V6},
    network,
};

/// A DNS message in which this name in the domain "example" has this IPv4 address.
fn answer(name: &str, address: [u8; 4]) -> Vec<u8> {
    let mut message = b"\0\0\x81\x80\0\x01\0\x01\0\0\0\0".to_vec();
    for label in [name, "example", ""] {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(b"\0\x01\0\x01\xc0\x0c\0\x01\0\x01\0\0\x01\0\0\x04");
    message.extend_from_slice(&address);
    message
}

fn over_udp(address: IpAddr, message: &[u8]) {
    let server = UdpSocket::bind((address, 53)).expect("bind");
    let client = UdpSocket::bind((address, 0)).expect("bind");
    server.send_to(message, client.local_addr().expect("an address")).expect("send");
    client.recv(&mut [0; 512]).expect("the answer");
}

fn over_tcp(address: IpAddr, message: &[u8]) {
    let listener = TcpListener::bind((address, 53)).expect("listen");
    let mut client = TcpStream::connect((address, 53)).expect("connect");
    let (mut server, _) = listener.accept().expect("accept");
    let length = (message.len() as u16).to_be_bytes();
    server.write_all(&[&length, message].concat()).expect("send");
    client.read_exact(&mut vec![0; 2 + message.len()]).expect("the answer");
}

fn answers_give_names_to_connections() {
    network::own();
    let mut trace = Trace::start(&["-e", "connect"]);
    let listener = TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = listener.local_addr().expect("an address").port();
    for (number, (through, tcp)) in (1..).zip([(V4, false), (V6, false), (V4, true), (V6, true)]) {
        let (name, address) = (format!("n{number}"), [127, 77, 0, number]);
        let deliver = if tcp { over_tcp } else { over_udp };
        deliver(through, &answer(&name, address));
        drop(TcpStream::connect((IpAddr::from(address), port)).expect("connect"));
        let is_it = |event: &serde_json::Value| {
            let net = common::net(event);
            net["dport"] == port && net["daddr"] == IpAddr::from(address).to_string()
        };
        trace.wait(&name, |events| network::mine(events).iter().any(is_it));
        let events = network::mine(&trace.events);
        let event = events.iter().find(|event| is_it(event)).expect("it came");
        assert_eq!(common::net(event)["dns"], serde_json::json!([format!("{name}.example")]), "{event:#}");
    }
}

crate::tests![answers_give_names_to_connections,];
