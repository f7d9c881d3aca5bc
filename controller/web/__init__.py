"""The webhook service: Clerk's events take effect within a second, or are recorded until they can.

Read in this order: `webhooks` (one request), `signatures` and `events` (is it from Clerk, what does it tell),
`endpoints` (one resource: its secrets, its database, its worker), `worker` (claims), `resources` and `sources`
(which resources), `app` (the process).
"""
