// A WebSocket on a stream of HTTP/2 (RFC 8441), by Node's own HTTP/2 and frames written byte by byte.
const fs = require('fs')
const http2 = require('http2')

const client = http2.connect(process.env.URL, { ca: fs.readFileSync(process.env.CA) })
client.once('remoteSettings', (settings) => {
  if (!settings.enableConnectProtocol) throw new Error('no WebSocket is offered')
  const stream = client.request(
    { ':method': 'CONNECT', ':protocol': 'websocket', ':path': '/live', 'sec-websocket-version': 13, 'sec-websocket-protocol': 'talk' },
    { endStream: false },
  )
  // Masked with zeros, as every frame of a client is masked.
  const send = (text) => stream.write(Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)]))
  stream.on('response', (headers) => {
    console.log(headers[':status'], headers['sec-websocket-protocol'])
    send('{}')
  })
  let came = Buffer.alloc(0)
  stream.on('data', (data) => {
    came = Buffer.concat([came, data])
    while (came.length >= 2 && came.length >= 2 + came[1]) {
      const [kind, payload] = [came[0] & 0x0f, came.subarray(2, 2 + came[1])]
      came = came.subarray(2 + came[1])
      if (kind === 8) {
        console.log(payload.readUInt16BE(), payload.subarray(2).toString())
        stream.end()
        client.close()
      } else {
        console.log(payload.toString())
        send('{"op": "order"}')
      }
    }
  })
})
