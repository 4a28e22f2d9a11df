"""What a job does with a cloud's own client, whose key is worth nothing."""

import os
import sys
import urllib.error
import urllib.request
import ssl

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

KEY = {"aws_access_key_id": "AKIACLIENT", "aws_secret_access_key": "nothing", "aws_session_token": "nothing"}


def client(service, url, **config):
    retries = {"total_max_attempts": 1}
    config = Config(retries=retries, connect_timeout=10, read_timeout=30, **config)
    verify = os.environ["CA"]
    return boto3.client(service, region_name="us-east-1", endpoint_url=url, verify=verify, config=config, **KEY)


store = client("s3", os.environ["STORE"])
table = client("dynamodb", os.environ["TABLE"])
large = bytes(range(250)) * 1200


def told(call, **arguments):
    try:
        answer = call(**arguments)
        print(answer["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as error:
        print(error.operation_name, error.response["ResponseMetadata"]["HTTPStatusCode"])


def same(key, body):
    print("same" if store.get_object(Bucket="bucket", Key=key)["Body"].read() == body else "another")


def objects():
    # With a checksum behind it, as boto3 does by itself.
    store.put_object(Bucket="bucket", Key="a b+c/large", Body=large)
    same("a b+c/large", large)
    # With a digest of the body.
    required = "when_required"
    s3 = {"payload_signing_enabled": True}
    signing = client("s3", os.environ["STORE"], request_checksum_calculation=required, s3=s3)
    signing.put_object(Bucket="bucket", Key="a b+c/é=1:2~.txt", Body=b"small")
    same("a b+c/é=1:2~.txt", b"small")
    # With neither.
    s3 = {"payload_signing_enabled": False}
    unsigned = client("s3", os.environ["STORE"], request_checksum_calculation=required, s3=s3)
    unsigned.put_object(Bucket="bucket", Key="other", Body=large)
    same("other", large)
    print([one["Key"] for one in store.list_objects_v2(Bucket="bucket", Prefix="a b+c/")["Contents"]])
    store.put_object(Bucket="bucket", Key="empty", Body=b"")
    print(store.get_object(Bucket="bucket", Key="empty")["Body"].read().decode() or "empty")


def refused():
    told(store.delete_object, Bucket="bucket", Key="a")
    told(store.list_buckets)
    url = store.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "a"})
    try:
        urllib.request.urlopen(url, context=ssl.create_default_context(cafile=os.environ["CA"]))
    except urllib.error.HTTPError as error:
        print("presigned", error.code)
    told(table.scan, TableName="prices")
    print("GetItem", table.get_item(TableName="prices", Key={"id": {"S": "7"}})["Item"])
    told(table.get_item, TableName="salaries", Key={"id": {"S": "7"}})


def stranger():
    told(store.put_object, Bucket="bucket", Key="a", Body=b"a")


{"objects": objects, "refused": refused, "stranger": stranger}[sys.argv[1]]()
