"""What both producers are made of. Nothing here waits, calls or reads a clock: the two drivers do.

send -> PendingBatch of the partition -(full, or its linger is over)-> ready -> Session: in flight -> settled
"""
