"""Makes buckets of an S3 server: ENDPOINT KEY SECRET REGION NAME[:versioned|:locked]..."""

import sys

import boto3
from botocore.config import Config

endpoint, key, secret, region, *names = sys.argv[1:]
client = boto3.client(
    "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name=region,
    config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 10}),
)
for name in names:
    name, _, kind = name.partition(":")
    client.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if kind == "locked" else {}))
    if kind == "versioned":
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    if kind == "locked":
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
        client.put_object_lock_configuration(
            Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
