-- who talks to this address: programs, hosts, connections and bytes in the last day
SELECT process.binary_path AS program, uniq(host) AS hosts, count() AS connections,
       sum(network_event.bytes_sent) AS sent, sum(network_event.bytes_received) AS received
FROM events
WHERE network_event.type = 'TcpConnectionClose'
  AND network_event.daddr = toIPv6('10.0.3.7') AND timestamp > (SELECT max(timestamp) FROM events) - INTERVAL 1 DAY
GROUP BY program ORDER BY connections DESC LIMIT 10;

-- what failed in the last hour, and why
SELECT network_event.error AS error, network_event.daddr AS daddr, network_event.dport AS dport,
       process.filename AS program, count() AS failures, uniq(host) AS hosts
FROM events
WHERE network_event.type = 'TcpConnectionFail' AND timestamp > (SELECT max(timestamp) FROM events) - INTERVAL 1 HOUR
GROUP BY error, daddr, dport, program ORDER BY failures DESC LIMIT 10;

-- new destinations today: no host had connected to them before
SELECT network_event.daddr AS daddr, network_event.dport AS dport, min(timestamp) AS first_seen, any(process.filename) AS program
FROM events
WHERE network_event.type = 'TcpConnectionEstablish'
GROUP BY daddr, dport
HAVING first_seen >= toStartOfDay((SELECT max(timestamp) FROM events))
ORDER BY first_seen LIMIT 10;

-- top talkers by pod
SELECT process.namespace AS namespace, process.pod AS pod,
       sum(network_event.bytes_sent + network_event.bytes_received) AS bytes, count() AS connections
FROM events
WHERE network_event.type = 'TcpConnectionClose' AND process.pod != ''
GROUP BY namespace, pod ORDER BY bytes DESC LIMIT 10;

-- handshake latency by destination
SELECT network_event.daddr AS daddr, network_event.dport AS dport, count() AS connections,
       quantilesExact(0.5, 0.95, 0.99)(network_event.latency_us) AS latency_us
FROM events
WHERE network_event.type = 'TcpConnectionEstablish'
GROUP BY daddr, dport ORDER BY latency_us[3] DESC LIMIT 10;

-- resets by listener: who resets connections to which local port
SELECT host, network_event.sport AS port, network_event.reason AS reason, process.filename AS listener, count() AS resets
FROM events
WHERE network_event.type = 'TcpConnectionClose' AND network_event.direction = 'ingress'
  AND network_event.reason IN ('local_reset', 'remote_reset')
GROUP BY host, port, reason, listener ORDER BY resets DESC LIMIT 10;

-- what changed since a deployment: failures by program in the hours before and after
WITH (SELECT max(timestamp) - INTERVAL 6 HOUR FROM events) AS deploy
SELECT process.filename AS program,
       countIf(timestamp < deploy) AS before, countIf(timestamp >= deploy) AS after,
       round(after / greatest(before, 1), 2) AS ratio
FROM events
WHERE network_event.type = 'TcpConnectionFail' AND timestamp > deploy - INTERVAL 6 HOUR
GROUP BY program ORDER BY ratio DESC LIMIT 10;

-- listeners whose queue is filling up
SELECT host, network_event.sport AS port, process.filename AS listener,
       max(network_event.backlog.len) AS longest, any(network_event.backlog.max) AS limit
FROM events
WHERE network_event.type = 'TcpConnectionAccept'
GROUP BY host, port, listener ORDER BY longest / greatest(limit, 1) DESC LIMIT 10;

-- all events of one connection
SELECT timestamp, host, network_event.type AS event, process.filename AS program, network_event.reason AS reason
FROM events
WHERE (host, network_event.connection) IN
      (SELECT host, network_event.connection FROM events WHERE network_event.type = 'TcpConnectionClose' LIMIT 1)
ORDER BY timestamp LIMIT 10;

-- programs outside the directories of packages that connected
SELECT host, process.binary_path AS program, process.uid AS uid, count() AS connections, uniq(network_event.daddr) AS destinations
FROM events
WHERE network_event.type = 'TcpConnectionEstablish' AND NOT match(process.binary_path, '^/(usr|bin|sbin|lib|opt)/')
GROUP BY host, program, uid ORDER BY connections DESC LIMIT 10;
