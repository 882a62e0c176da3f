"""The state that hosts of the service share, by buckets in the fleet's callout account (docs/policy.md#several-hosts).

No module here decides about connections.
"""
