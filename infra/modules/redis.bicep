// Where the streams are: Azure Managed Redis, encrypted, no access keys, nothing ever evicted.

@description('The name, part of its address.')
param name string
@description('Where it is.')
param location string
@description('On every resource.')
param tags object
@description('Its size.')
param sku string
@description('The identity that reads and writes.')
param principalId string

resource redis 'Microsoft.Cache/redisEnterprise@2025-07-01' = {
  name: name
  location: location
  tags: tags
  sku: { name: sku }
  properties: {
    // A replica takes over when a node is lost.
    highAvailability: 'Enabled'
    minimumTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
  }
}

resource database 'Microsoft.Cache/redisEnterprise/databases@2025-07-01' = {
  parent: redis
  name: 'default'
  properties: {
    accessKeysAuthentication: 'Disabled'
    clientProtocol: 'Encrypted'
    // One address for all, whatever the size. With 'OSSCluster' the connection string would begin with
    // rediss+cluster://. It can't be changed without making the database anew.
    clusteringPolicy: 'EnterpriseCluster'
    // A full Redis refuses, and the service says so; evicting would lose answers in silence.
    evictionPolicy: 'NoEviction'
    port: 10000
    // What was written is on disk within a second.
    persistence: { aofEnabled: true, aofFrequency: '1s' }
  }
}

resource access 'Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01' = {
  parent: database
  // Letters and digits only.
  name: 'app${uniqueString(principalId)}'
  properties: {
    // Full access to the data: the only policy that there is.
    accessPolicyName: 'default'
    user: { objectId: principalId }
  }
}

output hostName string = redis.properties.hostName
output port int = database.properties.port
