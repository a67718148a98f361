"""A cluster on AWS: what it costs, how it is started, sized and ended. The only place that imports boto3.

What decides (`prices`, `autoscale`) is pure; the other modules talk to AWS.
Nothing about a cluster is kept on this machine but the client's certificate: all is found by its tags.
"""
