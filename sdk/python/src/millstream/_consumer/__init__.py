"""What both consumers are made of. Nothing here waits or calls: the two drivers do.

Subscribe -> Reading: chunks in order of arrival -> head -> the caller; credits go back as chunks are used up.
Heartbeat -> Membership: what a group's member is to read, and what it reads.
"""
